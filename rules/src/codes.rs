//! Every code that a finding or a refusal can carry, each with its page. One table, so that none is without page.

/// A code and what `gravity explain CODE` prints.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    pub code: &'static str,
    /// Markdown: what it means, an example, how to mend it.
    pub page: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $page:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $code;)*

        /// All codes of this package, in the order of the pages.
        pub const ALL: &[Code] = &[
            $(Code { code: $code, page: include_str!(concat!("../../docs/errors/", $page)) },)*
        ];
    };
}

codes! {
    // Any config file.
    SYNTAX = "config/syntax", "config-syntax.md";
    DUPLICATE_KEY = "config/duplicate-key", "config-duplicate-key.md";
    UNKNOWN_KEY = "config/unknown-key", "config-unknown-key.md";
    REMOVED_KEY = "config/removed-key", "config-removed-key.md";
    MISSING_KEY = "config/missing-key", "config-missing-key.md";
    WRONG_TYPE = "config/wrong-type", "config-wrong-type.md";
    BAD_WORD = "config/bad-word", "config-bad-word.md";
    BAD_VALUE = "config/bad-value", "config-bad-value.md";

    // One rule by itself.
    NOT_BUILT = "rules/not-built", "rules-not-built.md";
    EMPTY_RULE = "rules/empty-rule", "rules-empty-rule.md";
    BAD_EVENT = "rules/bad-event", "rules-bad-event.md";
    TABLE_MISSING = "rules/table-missing", "rules-table-missing.md";
    METHOD_MISSING = "rules/method-missing", "rules-method-missing.md";
    BAD_IDENTIFIER = "rules/bad-identifier", "rules-bad-identifier.md";
    RESERVED_TABLE = "rules/reserved-table", "rules-reserved-table.md";
    BAD_PATH = "rules/bad-path", "rules-bad-path.md";
    UNKNOWN_TYPE = "rules/unknown-type", "rules-unknown-type.md";
    SOURCE_CHOICE = "rules/source-choice", "rules-source-choice.md";
    DUPLICATE_TARGET = "rules/duplicate-target", "rules-duplicate-target.md";
    KEY_MISSING = "rules/key-missing", "rules-key-missing.md";
    KEY_CONFLICT = "rules/key-conflict", "rules-key-conflict.md";
    KEY_NOT_MAPPED = "rules/key-not-mapped", "rules-key-not-mapped.md";
    BAD_CONSTANT = "rules/bad-constant", "rules-bad-constant.md";
    BAD_PREVIOUS = "rules/bad-previous", "rules-bad-previous.md";
    BAD_OP = "rules/bad-op", "rules-bad-op.md";
    OP_TYPE = "rules/op-type", "rules-op-type.md";
    UNUSED_KEY = "rules/unused-key", "rules-unused-key.md";
    EXPRESSION_SYNTAX = "rules/expression-syntax", "rules-expression-syntax.md";
    EXPRESSION_TYPE = "rules/expression-type", "rules-expression-type.md";
    EXPRESSION_FUNCTION = "rules/expression-function", "rules-expression-function.md";
    EXPRESSION_UNTYPED = "rules/expression-untyped", "rules-expression-untyped.md";
    EXPRESSION_COST = "rules/expression-cost", "rules-expression-cost.md";
    UNUSED_MAPPING = "rules/unused-mapping", "rules-unused-mapping.md";

    // Rules among each other and with the other files.
    UNKNOWN_DATABASE = "rules/unknown-database", "rules-unknown-database.md";
    UNKNOWN_EXPORTER = "rules/unknown-exporter", "rules-unknown-exporter.md";
    DATABASE_CHOICE = "rules/database-choice", "rules-database-choice.md";
    DUPLICATE_ROUTING = "rules/duplicate-routing", "rules-duplicate-routing.md";
    DUPLICATE_ID = "rules/duplicate-id", "rules-duplicate-id.md";
    TYPE_MISSING = "rules/type-missing", "rules-type-missing.md";
    TYPE_CONFLICT = "rules/type-conflict", "rules-type-conflict.md";
    TOO_MANY_RULES = "rules/too-many-rules", "rules-too-many-rules.md";
    NO_RULES = "rules/no-rules", "rules-no-rules.md";

    // Rules against live tables.
    UNKNOWN_TABLE = "rules/unknown-table", "rules-unknown-table.md";
    UNKNOWN_COLUMN = "rules/unknown-column", "rules-unknown-column.md";
    NOT_THE_KEY = "rules/not-the-key", "rules-not-the-key.md";
    GENERATED_COLUMN = "rules/generated-column", "rules-generated-column.md";
    LOSSY_TYPE = "rules/lossy-type", "rules-lossy-type.md";
    COLUMN_NOT_FILLED = "rules/column-not-filled", "rules-column-not-filled.md";

    // An event that a rule cannot take.
    INVALID_JSON = "map/invalid-json", "map-invalid-json.md";
    TOO_DEEP = "map/too-deep", "map-too-deep.md";
    MISSING_KEY_PART = "map/missing-key", "map-missing-key.md";
    VALUE_TYPE = "map/wrong-type", "map-wrong-type.md";
    UNREADABLE = "map/unreadable", "map-unreadable.md";
    OUT_OF_RANGE = "map/out-of-range", "map-out-of-range.md";
    LOSSY = "map/lossy", "map-lossy.md";
    TOO_LONG = "map/too-long", "map-too-long.md";
    NUL_IN_TEXT = "map/nul-in-text", "map-nul-in-text.md";
    NULL_VALUE = "map/null", "map-null.md";
    UNKNOWN_FIELD = "map/unknown-field", "map-unknown-field.md";
}

/// The page of a code.
pub fn page(code: &str) -> Option<&'static str> {
    ALL.iter().find(|entry| entry.code == code).map(|entry| entry.page)
}
