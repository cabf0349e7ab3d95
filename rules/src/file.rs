//! What may stand in rules.json, key by key. The doc comments are the text of `gravity explain KEY` and of the JSON Schema.

use gravity_model::ColumnOp;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Rules: which events change which views, and which exporters hear of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "rules.json", extend("x-removed" = removed_top()))]
pub struct RulesFile {
    /// Address of the JSON Schema, for editors.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// All rules that match an event apply, in the order of the file.
    pub rules: Vec<RuleEntry>,
    /// Types of event fields that filters and expressions use, by event name. Needed where their use does not tell.
    #[serde(default)]
    pub events: IndexMap<String, EventEntry>,
}

/// What is known about the payload of one event.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventEntry {
    /// Path of a field (`address.city`, `lines[0].sku`, `/lines/0/sku`) to its type.
    pub fields: IndexMap<String, String>,
}

/// One rule. With `table` it is a projection: it writes rows. With `database` it is a routing: it says where the event's
/// rows go and which exporters hear of it. It may be both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-removed" = removed_rule()))]
pub struct RuleEntry {
    /// Name of the rule, for people. Unique.
    pub id: Option<String>,
    /// Name of the event that the rule applies to.
    pub event: String,
    /// Table (or collection) to write to, `name` or `schema.name`.
    pub table: Option<String>,
    /// Another spelling of `table`.
    pub collection: Option<String>,
    /// What to do with the row.
    pub method: Option<Method>,
    /// Which field goes to which column. Empty or absent: every top-level field goes to the column of its name.
    pub mapping: Option<Vec<MappingEntry>>,
    /// Key column or columns, where the mapping does not mark them with `primary`.
    #[serde(rename = "primaryKey")]
    pub primary_key: Option<OneOrMany>,
    /// Database that the rows go to, a name from databases.json.
    pub database: Option<String>,
    /// Exporters that are told once the database has the event, names from exporter.json.
    pub exporter: Option<Vec<String>>,
    /// `insert` of a row that exists with other values: park the event (the default), or ignore it.
    pub on_conflict: Option<OnConflict>,
    /// `patch` of a row that does not exist: ignore the event (the default), or park it.
    pub on_missing: Option<OnMissing>,
    /// Without `mapping`: fields that have no column are ignored (and counted), or park the event. The default is the
    /// database's `unknown_fields`, else `ignore`.
    pub unknown_fields: Option<UnknownFields>,
    /// Condition under which the rule applies, in CEL's syntax: `total > 100 && currency in ['TWD', 'EUR']`. What is not true
    /// filters. On a rule with `database` and without `table` it holds for all that the rule carries: its exporters, and the
    /// rows of rules without `database`.
    pub filter: Option<String>,
    /// Columns other than the key by which rows are found. Not in this build.
    #[serde(rename = "match")]
    pub match_columns: Option<Vec<String>>,
}

/// One column of a row and where its value comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MappingEntry {
    /// Path of the event's field: `name`, `address.city`, `lines[0].sku`, the JSON pointer `/lines/0/sku`, or metadata:
    /// `$meta.sequence`, `$meta.event`, `$meta.id`, `$meta.key`, `$meta.source`, `$meta.time`, `$meta.received`,
    /// `$meta.traceparent`, `$meta.headers.NAME`.
    pub source: Option<String>,
    /// Column to write.
    pub target: String,
    /// The column is part of the view's key.
    pub primary: Option<bool>,
    /// Type of the value: bool, i8 to i64, u8 to u64, f32, f64, decimal, decimal(p,s), text, varchar(n), uuid, date, time,
    /// timestamp, timestamptz, json, binary (base64 in JSON), and `T[]`. Needed where the database has `"ddl": "create"`.
    #[serde(rename = "type")]
    #[schemars(extend("pattern" = r"^(bool|[iu](8|16|32|64)|f32|f64|decimal(\(\d+, ?\d+\))?|text|varchar\(\d+\)|uuid|date|time|timestamp|timestamptz|json|binary)(\[\])?$"))]
    pub column_type: Option<String>,
    /// Value of the column when the row is created by an event that does not carry the field.
    #[serde(default, deserialize_with = "present")]
    pub default: Option<Constant>,
    /// Constant value of the column, instead of `source`.
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Constant>,
    /// Computed value of the column, instead of `source`, in CEL's syntax: `price * quantity`. Null where there is none.
    pub expression: Option<String>,
    /// How the value joins what stands in the row. Other than `set` only beside the key, with `update`, `upsert` and `patch`, and
    /// without `default`.
    pub op: Option<Op>,
    /// On a primary mapping: path of the key's former value. Where it differs, the row moves to the new key.
    pub previous: Option<String>,
}

/// A JSON value exactly as written, so that its digits survive.
#[derive(Debug, Clone)]
pub struct Constant(pub Box<RawValue>);

impl Constant {
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl<'de> Deserialize<'de> for Constant {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(d).map(Constant)
    }
}

impl JsonSchema for Constant {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Constant".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({})
    }
}

/// `null` is a value here, not an absent key.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Constant>, D::Error> {
    Constant::deserialize(d).map(Some)
}

/// One name or a list of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn as_slice(&self) -> &[String] {
        match self {
            OneOrMany::One(name) => std::slice::from_ref(name),
            OneOrMany::Many(names) => names,
        }
    }
}

/// What a rule does with the row of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A new row. A row that exists with the same values counts as written; other values: see `on_conflict`.
    Insert,
    /// Write the row, create it if it is missing. Only mapped fields that the event carries change.
    Update,
    /// The same as `update`.
    Upsert,
    /// Change the row if it exists: see `on_missing`.
    Patch,
    /// Remove the row.
    Delete,
    /// Remove all rows of the table.
    Truncate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// The event becomes a dead letter.
    #[default]
    Park,
    /// The row stays as it is.
    Ignore,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnMissing {
    /// Nothing happens; the event counts as filtered.
    #[default]
    Ignore,
    /// The event becomes a dead letter.
    Park,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFields {
    /// Left out of the view and counted; the value stays in the log.
    #[default]
    Ignore,
    /// The event becomes a dead letter.
    Park,
}

/// How a value joins what stands in the row. A row or value that is not there counts as nothing; a null or absent field changes
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// The value replaces it.
    #[default]
    Set,
    /// Sum, exact: of numbers.
    Add,
    /// The smaller of both: of numbers, texts (by their bytes), dates and times.
    Min,
    /// The larger of both, of the same types.
    Max,
    /// Put behind it: text behind text; in a column of JSON the value becomes the last of a list.
    Append,
}

impl From<Op> for ColumnOp {
    fn from(op: Op) -> ColumnOp {
        match op {
            Op::Set => ColumnOp::Set,
            Op::Add => ColumnOp::Add,
            Op::Min => ColumnOp::Min,
            Op::Max => ColumnOp::Max,
            Op::Append => ColumnOp::Append,
        }
    }
}

fn removed_top() -> serde_json::Value {
    serde_json::json!({
        "store": "name the database on a rule: {\"event\": …, \"database\": \"db1\"}",
        "stores": "name the database on a rule: {\"event\": …, \"database\": \"db1\"}",
        "subscriptions": "add a rule with `event`, `database` and `exporter`",
        "trigger": "list the exporter on the rule: {\"event\": …, \"database\": \"db1\", \"exporter\": [\"exporter1\"]}",
        "exporters": "put exporters into exporter.json under `exporter`",
        "exporter": "put exporters into exporter.json",
        "databases": "put databases into databases.json",
        "sources": "put sources into sources.json",
        "collections": "write a rule with `event`, `table` and `mapping`",
        "transmitters": "name the database on a rule: {\"event\": …, \"database\": \"db1\"}"
    })
}

fn removed_rule() -> serde_json::Value {
    serde_json::json!({
        "handler": "write the fields into `mapping`; conditions go into `filter`, computed values into `expression`",
        "script": "write the fields into `mapping`; conditions go into `filter`, computed values into `expression`",
        "schema": "give each mapping a `type`",
        "stores": "write `database`",
        "store": "write `database`",
        "subscriptions": "write `exporter`, a list of names from exporter.json",
        "trigger": "write `exporter`, a list of names from exporter.json",
        "exporters": "write `exporter`, a list of names from exporter.json",
        "product": "write `table`",
        "enabled": "remove the rule, or keep it in a file outside of the config directory",
        "name": "write `id`",
        "desc": "write a comment: // …",
        "createdAt": "remove it; the history of rules is in the log",
        "updatedAt": "remove it; the history of rules is in the log"
    })
}
