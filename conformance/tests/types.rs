//! The type matrix over real databases: each cell a round trip read back with the database's own client, or a refusal with its
//! code. `GRAVITY_UPDATE=1` prints docs/types.md again.

use gravity_conformance::type_matrix::read::{Client, play};
use gravity_conformance::type_matrix::{Cell, Shown, Target, TypeRow, chapters, page};
use gravity_conformance::view_suite::{MongoPlace, MySqlPlace, PostgresPlace, SqlitePlace};
use gravity_model::ColumnType;

fn rows() -> Vec<TypeRow> {
    chapters().into_iter().flat_map(|(_, rows)| rows).collect()
}

/// What is not as the matrix says; looked at when the place is gone.
async fn wrong(place: &impl Client) -> String {
    play(place, &rows()).await.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_in_postgresql() {
    let Some(place) = PostgresPlace::new().await else { return };
    let wrong = wrong(&place).await;
    place.remove().await;
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_in_mariadb() {
    let Some(place) = MySqlPlace::mariadb().await else { return };
    let wrong = wrong(&place).await;
    place.remove().await;
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_in_sqlite() {
    let Some(place) = SqlitePlace::new().await else { return };
    let wrong = wrong(&place).await;
    place.remove().await;
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_in_mongodb() {
    let Some(place) = MongoPlace::new().await else { return };
    let wrong = wrong(&place).await;
    place.remove().await;
    assert!(wrong.is_empty(), "{wrong}");
}

/// A cell that says nothing of some database would be one that nobody tests.
#[test]
fn every_cell_speaks_of_every_database() {
    for row in rows() {
        for target in Target::ALL {
            assert!(row.columns.contains_key(&target), "{}: no column in {}", row.word, target.heading());
            // For null and absent to be tried with.
            let taken = |cell: &Cell| matches!(cell.shows[&target], Shown::Reads(_));
            assert!(row.cells.iter().any(taken), "{}: no value that {} takes", row.word, target.heading());
            for cell in &row.cells {
                assert!(cell.shows.contains_key(&target), "{} {}: {}", row.word, cell.given, target.heading());
            }
        }
    }
}

/// Every type word is in the matrix.
#[test]
fn every_type_word_has_a_row() {
    let words: Vec<&str> = rows().iter().map(|row| row.word).collect();
    for word in ColumnType::WORDS.iter().copied().chain(["[]"]) {
        // `varchar(n)`: any length.
        let word = word.split_inclusive('(').next().unwrap_or(word);
        let has = |row: &&str| {
            *row == word || word.ends_with('(') && row.starts_with(word) || word == "[]" && row.ends_with(word)
        };
        assert!(words.iter().any(has), "{word}");
    }
}

#[test]
fn the_page_is_printed_from_the_matrix() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/types.md");
    let page = page::page();
    if std::env::var_os("GRAVITY_UPDATE").is_some() {
        std::fs::write(path, &page).expect("the page is written");
    }
    let shipped = std::fs::read_to_string(path).unwrap_or_default();
    assert!(shipped == page, "docs/types.md is not up to date: run the test with GRAVITY_UPDATE=1");
}
