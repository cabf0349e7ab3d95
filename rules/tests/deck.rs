//! The original deck's rules, byte for byte, give the original deck's row.

mod common;

use common::{Table, context, evaluate_one};
use gravity_model::Value;
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{ChangeOp, Subscription, Verdict, load};

const ONE: &str = include_str!("deck/1.json");
const TWO: &str = include_str!("deck/2.json");

#[test]
fn the_decks_two_files_load_and_route() {
    let files = [SourceFile::new("rules/1.json", ONE), SourceFile::new("rules/2.json", TWO)];
    let rules = load(&files, &context(&["db1", "db2"], &["exporter1", "exporter2"])).expect("the deck's rules");
    assert_eq!(rules.databases(), ["db1", "db2"]);
    assert!(rules.warnings().is_empty());
    let subscription = |exporter: &str| Subscription { exporter: exporter.to_owned(), database: "db1".to_owned() };
    assert_eq!(rules.subscriptions(), [subscription("exporter1"), subscription("exporter2")]);
    let users = Table::new("users").key("id", "i64").column("col_name", "text").column("col_email", "text").shape();
    for database in ["db1", "db2"] {
        let program = rules.compile(database, None, std::slice::from_ref(&users)).expect("fits");
        assert_eq!(program.names(), ["userCreated"]);
        assert_eq!(program.fires("userCreated").len(), if database == "db1" { 2 } else { 0 });
        let (verdict, out) =
            evaluate_one(&program, "userCreated", r#"{"id":1,"name":"Fred Chien","email":"fred@example.com"}"#);
        assert_eq!(verdict, Verdict::Matched);
        assert_eq!(out.changes.len(), 1);
        assert_eq!(out.changes[0].op, ChangeOp::Upsert);
        let row = [Value::Int(1), Value::Text("Fred Chien".into()), Value::Text("fred@example.com".into())];
        assert_eq!(out.row(&out.changes[0]), row);
    }
}

#[test]
fn both_forms_joined_in_one_file_mean_the_same() {
    let array = |text: &str| {
        let (open, close) = (text.find('[').expect("a list"), text.rfind(']').expect("a list"));
        text[open + 1..close].to_owned()
    };
    let joined = format!("{{\"rules\": [{}, {}]}}", array(ONE), array(TWO));
    let context = context(&["db1", "db2"], &["exporter1", "exporter2"]);
    let two = load(&[SourceFile::new("rules/1.json", ONE), SourceFile::new("rules/2.json", TWO)], &context);
    let one = load(&[SourceFile::new("rules.json", joined)], &context);
    assert_eq!(one.expect("joined").hash(), two.expect("two files").hash());
}
