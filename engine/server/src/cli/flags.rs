//! Flags that several commands share: the config directory, and one flag per key of gravity.toml.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, error::Error};

use crate::config::Flags;
use crate::config::key::{KEYS, Key};

/// `-c DIR`
#[derive(clap::Args, Debug)]
pub struct ConfigDirectory {
    /// Config directory.
    #[arg(short = 'c', long = "config", value_name = "DIR", default_value = ".")]
    pub config: PathBuf,
}

/// One flag per key of gravity.toml; over environment over file over default.
#[derive(Clone, Debug, Default)]
pub struct SettingFlags(pub Flags);

fn flag_name(key: &Key) -> String {
    key.short_flag.map_or_else(|| key.flag(), str::to_owned)
}

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingFlags, Error> {
        let mut flags = SettingFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for key in KEYS {
            if let Some(value) = matches.get_one::<String>(&key.path()) {
                self.0.insert(key.path(), (flag_name(key), value.clone()));
            }
        }
        Ok(())
    }
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().fold(command, |command, key| {
            let default = if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
            let mut arg = Arg::new(key.path())
                .long(flag_name(key))
                .value_name(key.value_name())
                .help(format!("{}{default}", key.doc))
                .hide(!key.built)
                .help_heading("Settings (gravity.toml)");
            if key.short_flag.is_some() {
                arg = arg.visible_alias(key.flag());
            }
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingFlags::augment_args(command)
    }
}
