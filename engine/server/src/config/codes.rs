//! Every code that the binary itself gives to a finding, a refusal or a problem document, each with its page.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $code;)*

        /// All codes of this package.
        #[cfg(test)]
        pub const ALL: &[&str] = &[$($code),*];
    };
}

/// Code and page (Markdown) of every error, whichever package gives it: made from docs/errors by the build script.
pub const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// The page of a code.
pub fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(known, _)| *known == code).map(|(_, page)| *page)
}

codes! {
    // The config directory.
    FILE_MISSING = "config/file-missing";
    FILE_UNREADABLE = "config/file-unreadable";
    UNKNOWN_FILE = "config/unknown-file";
    TOML_SYNTAX = "config/toml-syntax";
    UNKNOWN_VARIABLE = "config/unknown-variable";

    // Values.
    BAD_REFERENCE = "config/bad-reference";
    UNRESOLVED_REFERENCE = "config/unresolved-reference";
    OPEN_SECRET_FILE = "config/open-secret-file";
    BAD_NAME = "config/bad-name";
    BAD_ADDRESS = "config/bad-address";
    CONFLICT = "config/conflict";
    UNUSED_KEY = "config/unused-key";
    FORBIDDEN_SETTING = "config/forbidden-setting";
    DUPLICATE_PLACE = "config/duplicate-place";
    NOT_ACCEPTED = "config/not-accepted";
    NOT_BUILT = "config/not-built";

    // Said at every start.
    LITERAL_SECRET = "config/literal-secret";
    PLAINTEXT = "config/plaintext";
    ACCEPTED = "config/accepted";

    // The API's own safety.
    API_OPEN = "config/api-open";
    API_PLAINTEXT = "config/api-plaintext";

    // check --live.
    UNREACHABLE = "config/unreachable";

    // The API.
    STARTING = "api/starting";
    BAD_REQUEST = "api/bad-request";
    UNAUTHORIZED = "api/unauthorized";
    FORBIDDEN = "api/forbidden";
    CROSS_ORIGIN = "api/cross-origin";
    NOT_FOUND = "api/not-found";
    METHOD_NOT_ALLOWED = "api/method-not-allowed";
    SLOW_BODY = "api/slow-body";
    NOT_REACHED = "api/not-reached";

    // The command line.
    ENGINE_UNREACHABLE = "cli/engine-unreachable";
    ENGINE_ANSWER = "cli/engine-answer";
    EXISTS = "cli/exists";
    BAD_IMPORT = "cli/bad-import";
    BAD_CASE = "cli/bad-case";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_that_says_what_happened_and_what_to_do() {
        for code in ALL {
            let page = page(code).unwrap_or_else(|| panic!("{code} has no page"));
            assert!(page.starts_with(&format!("# {code}\n")), "{code}: the page begins with its code");
            assert!(page.contains("## What to do"), "{code}");
        }
    }

    #[test]
    fn codes_are_distinct_over_the_packages() {
        let mut all: Vec<&str> = ALL.iter().copied().chain(gravity_rules::codes::ALL.iter().map(|c| c.code)).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
