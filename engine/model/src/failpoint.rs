//! Named points in the code at which a test build can kill, delay, fail or sabotage the process.
//!
//! Compiled to nothing without the feature `failpoints`. With it, the environment variable `GRAVITY_FAILPOINTS` holds
//! `name=action[@passage]` entries separated by `;`. Actions: `kill` (SIGKILL to itself), `abort`, `panic`, `delay:MS`, `fail`
//! (the caller returns an error of its own), `sabotage` (the caller does the wrong thing on purpose; gates must notice).
//! `@N` acts on the N-th passage only (1 is the first).

/// What a caller has to do at a point that can fail or be sabotaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    Pass,
    Fail,
    Sabotage,
}

/// Passes the point `name`. Kills, aborts and delays happen inside.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &'static str) -> Hit {
    Hit::Pass
}

/// True when a sabotage of this name is switched on.
#[inline(always)]
pub fn sabotaged(name: &'static str) -> bool {
    hit(name) == Hit::Sabotage
}

#[cfg(feature = "failpoints")]
pub use enabled::hit;

#[cfg(feature = "failpoints")]
mod enabled {
    use std::collections::HashMap;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::Hit;

    enum Action {
        Kill,
        Abort,
        Panic,
        Delay(Duration),
        Fail,
        Sabotage,
    }

    struct Point {
        action: Action,
        only: Option<u64>,
        passages: AtomicU64,
    }

    fn points() -> &'static HashMap<String, Point> {
        static POINTS: OnceLock<HashMap<String, Point>> = OnceLock::new();
        POINTS.get_or_init(|| {
            let text = std::env::var("GRAVITY_FAILPOINTS").unwrap_or_default();
            text.split(';').filter(|entry| !entry.trim().is_empty()).map(parse).collect()
        })
    }

    fn parse(entry: &str) -> (String, Point) {
        let (name, action) = entry.trim().split_once('=').expect("GRAVITY_FAILPOINTS: name=action");
        let (action, only) = match action.split_once('@') {
            Some((action, n)) => (action, Some(n.parse().expect("GRAVITY_FAILPOINTS: a number after @"))),
            None => (action, None),
        };
        let action = match action.split_once(':') {
            Some(("delay", ms)) => Action::Delay(Duration::from_millis(ms.parse().expect("delay:MS"))),
            None if action == "kill" => Action::Kill,
            None if action == "abort" => Action::Abort,
            None if action == "panic" => Action::Panic,
            None if action == "fail" => Action::Fail,
            None if action == "sabotage" => Action::Sabotage,
            _ => panic!("GRAVITY_FAILPOINTS: unknown action {action:?}"),
        };
        (name.to_owned(), Point { action, only, passages: AtomicU64::new(0) })
    }

    pub fn hit(name: &'static str) -> Hit {
        let Some(point) = points().get(name) else { return Hit::Pass };
        let passage = point.passages.fetch_add(1, Ordering::Relaxed) + 1;
        if point.only.is_some_and(|n| n != passage) {
            return Hit::Pass;
        }
        match &point.action {
            Action::Kill => {
                // `kill -9` of ourselves without unsafe: the shell's kill is slower, abort would run no hooks either but dumps core.
                let pid = std::process::id().to_string();
                let _ = std::process::Command::new("kill").args(["-9", &pid]).status();
                std::process::abort()
            }
            Action::Abort => std::process::abort(),
            Action::Panic => panic!("failpoint {name}"),
            Action::Delay(time) => {
                std::thread::sleep(*time);
                Hit::Pass
            }
            Action::Fail => Hit::Fail,
            Action::Sabotage => Hit::Sabotage,
        }
    }
}
