//! The views as MongoDB holds them, read with its driver and nothing of Gravity's; a reader of a stand-alone server leaves
//! tombstones out.

use futures::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Database};

use super::oracle::Order;
use super::script::User;
use super::tables::{Tables, digits};

/// All documents of the run's three collections.
pub async fn read(uri: &str, database: &str) -> Result<Tables, String> {
    let database = connect(uri, database).await?;
    let users = all(&database, "users").await?;
    let orders = all(&database, "orders").await?;
    let audit = all(&database, "audit").await?;
    collect(&users, &orders, &audit).map_err(|why| format!("reading MongoDB: {why}"))
}

/// Numbers of the orders of an entity, ascending.
pub async fn orders(uri: &str, database: &str, entity: i64) -> Result<Vec<i64>, String> {
    let found = all(&connect(uri, database).await?, "orders").await?;
    let numbers = found.iter().map(|document| Ok((whole(document, "entity")?, whole(document, "number")?)));
    let numbers: Vec<(i64, i64)> = numbers.collect::<Result<_, String>>()?;
    Ok(sorted(numbers.into_iter().filter(|(of, _)| *of == entity).map(|(_, number)| number)))
}

/// The items that the audit tells of, ascending.
pub async fn items(uri: &str, database: &str) -> Result<Vec<i64>, String> {
    let found = all(&connect(uri, database).await?, "audit").await?;
    Ok(sorted(found.iter().map(|document| whole(document, "i")).collect::<Result<Vec<i64>, String>>()?))
}

/// Owners of the checkpoints.
pub async fn owners(uri: &str, database: &str) -> Result<Vec<String>, String> {
    let found = all(&connect(uri, database).await?, "gravity_checkpoints").await?;
    found.iter().map(|document| needed(document, "owner", text(document, "owner")?)).collect()
}

fn sorted(numbers: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut numbers: Vec<i64> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers
}

/// Makes sure that the run's own database is empty; what is written first makes it.
pub async fn remove(uri: &str, database: &str) -> Result<(), String> {
    connect(uri, database).await?.drop().await.map_err(|error| format!("MongoDB: {error}"))
}

async fn connect(uri: &str, database: &str) -> Result<Database, String> {
    let client = Client::with_uri_str(uri).await.map_err(|error| format!("MongoDB: {error}"))?;
    Ok(client.database(database))
}

async fn all(database: &Database, name: &str) -> Result<Vec<Document>, String> {
    let read = async {
        let found =
            database.collection::<Document>(name).find(doc! { "_gravity_deleted": { "$exists": false } }).await?;
        found.try_collect().await
    };
    read.await.map_err(|error: mongodb::error::Error| format!("reading {name} of MongoDB: {error}"))
}

fn collect(users: &[Document], orders: &[Document], audit: &[Document]) -> Result<Tables, String> {
    let mut tables = Tables::default();
    for document in users {
        let id = whole(document, "id")?;
        keyed(document, &Bson::Int64(id))?;
        let user = User {
            name: text(document, "name")?,
            email: text(document, "email")?,
            age: field(document, "age", Bson::as_i64)?,
            amount: field(document, "amount", Bson::as_f64)?.map(shown),
            active: field(document, "active", Bson::as_bool)?,
        };
        tables.users.insert(id, user);
    }
    for document in orders {
        let (entity, number) = (whole(document, "entity")?, whole(document, "number")?);
        keyed(document, &doc! { "entity": entity, "number": number }.into())?;
        let total = needed(document, "total", field(document, "total", Bson::as_f64)?)?;
        let state = needed(document, "state", text(document, "state")?)?;
        tables.orders.insert((entity, number), Order { total: shown(total), state });
    }
    for document in audit {
        let sequence = whole(document, "sequence")?;
        keyed(document, &Bson::Int64(sequence))?;
        tables.audit.push((sequence, whole(document, "i")?));
    }
    Ok(tables)
}

/// A double as the digits that name it, in the form that amounts are compared in.
pub fn shown(number: f64) -> String {
    digits(&number.to_string())
}

/// Absent and null are one; another type is an error.
fn field<'d, T>(document: &'d Document, name: &str, read: impl Fn(&'d Bson) -> Option<T>) -> Result<Option<T>, String> {
    match document.get(name) {
        None | Some(Bson::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| format!("{name} is {value:?} in {document}")),
    }
}

fn text(document: &Document, name: &str) -> Result<Option<String>, String> {
    Ok(field(document, name, Bson::as_str)?.map(str::to_owned))
}

fn needed<T>(document: &Document, name: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("no {name} in {document}"))
}

fn whole(document: &Document, name: &str) -> Result<i64, String> {
    needed(document, name, field(document, name, Bson::as_i64)?)
}

/// The key stands in `_id` as well: two documents of one key cannot hide behind each other.
fn keyed(document: &Document, key: &Bson) -> Result<(), String> {
    match document.get("_id") == Some(key) {
        true => Ok(()),
        false => Err(format!("the `_id` is not {key} in {document}")),
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    #[test]
    fn documents_are_read_by_their_types_and_keys() {
        let user = doc! { "_id": 7_i64, "id": 7_i64, "name": "n", "email": Bson::Null, "amount": 1.5, "_g": 9_i64 };
        let order = doc! {
            "_id": { "entity": 1_i64, "number": 2_i64 }, "entity": 1_i64, "number": 2_i64, "total": -3.0, "state": "s",
        };
        let audit = doc! { "_id": 5_i64, "sequence": 5_i64, "i": 4_i64 };
        let tables = collect(from_ref(&user), from_ref(&order), &[audit]).expect("read");
        let wanted = User { name: Some("n".to_owned()), amount: Some("1.5".to_owned()), ..User::default() };
        assert_eq!(tables.users[&7], wanted);
        assert_eq!(tables.orders[&(1, 2)], Order { total: "-3".to_owned(), state: "s".to_owned() });
        assert_eq!(tables.audit, [(5, 4)]);
        let mut other = user.clone();
        other.insert("id", 8_i64);
        assert!(collect(&[other], &[], &[]).is_err(), "another key than its `_id`");
        let mut other = user;
        other.insert("age", "old");
        assert!(collect(&[other], &[], &[]).is_err(), "another type");
        let mut other = order;
        other.remove("state");
        assert!(collect(&[], &[other], &[]).is_err(), "a field that is never null");
    }
}
