//! The view contract over the memory double, SQLite, PostgreSQL, MariaDB and MongoDB (FerretDB in its place); over MySQL where
//! there is one.

use gravity_conformance::view_contract;
use gravity_conformance::view_suite::{MemoryPlace, MongoPlace, MySqlPlace, PostgresPlace, SqlitePlace};

/// Every test of the suite that all of them run.
macro_rules! everywhere {
    ($module:ident, $place:expr; $($part:ident :: $more:ident),* $(,)?) => {
        view_contract! { $module, $place;
            bookkeeping::open_is_idempotent,
            bookkeeping::checkpoints_come_back_whole,
            bookkeeping::begin_compares_each_part,
            bookkeeping::rewrite_compares_each_part,
            bookkeeping::rows_and_checkpoint_move_together,
            bookkeeping::commit_moves_exactly_the_lanes_begun,
            bookkeeping::v12_trap7_a_zombie_writes_nothing,
            bookkeeping::v12_taking_over_waits_for_what_is_under_way,
            bookkeeping::a_table_belongs_to_one_route,
            bookkeeping::a_rewrite_is_whole_or_nothing,
            bookkeeping::v1_rows_and_checkpoint_survive_a_cut_together,
            bookkeeping::v14_dropped_futures_lose_no_later_write,
            bookkeeping::o38_the_views_own_checkpoint_rules,
            operations::upsert_creates_and_changes,
            operations::absent_leaves_alone_and_null_writes_null,
            operations::on_create_fills_new_rows_only,
            operations::trap5_rows_of_keys_only,
            operations::o30_missing_rows_are_created_or_reported,
            operations::a_required_patch_is_refused_where_the_row_is_missing,
            operations::trap6_insert_of_the_same_row_counts_as_written,
            operations::o28_ten_thousand_events_twice,
            operations::o29_one_long_text_among_ten_thousand,
            operations::trap19_an_event_is_refused_alone,
            operations::after_a_fault_only_rollback_follows,
            operations::trap4_a_key_change_moves_the_row,
            operations::o32_truncate_in_its_order,
            operations::o36_composite_keys,
            operations::trap3_another_unique_key_is_a_refusal,
            operations::partial_updates_do_not_need_every_column,
            operations::large_groups_are_split,
            operations::v8_trap13_missing_tables_and_columns_stop_the_route,
            operations::v8_trap13_a_column_dropped_while_running,
            operations::an_empty_batch_moves_the_checkpoint,
            joins::s2_7_every_op_on_present_null_and_missing,
            joins::s2_7_what_does_not_fit_is_refused,
            joins::s2_7_joins_in_one_batch_with_deletes,
            joins::s2_7_rolled_back_sums_did_not_happen,
            joins::s2_7_ten_thousand_sums,
            joins::s2_7_no_insert_joins,
            joins::s2_7_random_events_as_in_memory,
            hostile::t1_ten_thousand_hostile_strings,
            hostile::trap12_a_nul_in_text_is_kept_or_refused,
            hostile::t5_trap12_huge_values_are_refused,
            hostile::o35_hostile_names_are_refused,
            hostile::o35_reserved_words_and_case_are_plain_names,
            types::trap12_every_type_comes_back_exactly,
            types::o36_every_key_type,
            types::nothing_is_shortened_in_silence,
            catalogue::a_missing_table_is_proposed_and_made,
            catalogue::a_live_table_is_described,
            catalogue::inspect_names_what_is_missing,
            traps::trap2_delete_upsert_delete_of_one_key_in_one_batch,
            traps::trap2_trap18_steps_over_the_same_rows_keep_their_order,
            traps::trap12_more_values_than_one_statement_has_parameters,
            traps::trap13_columns_added_widened_and_renamed_while_running,
            traps::trap16_opening_again_harms_nobody_under_way,
            traps::o26_no_row_has_a_column_of_its_neighbour,
            traps::o37_equal_values_count_as_written,
            $($part::$more,)*
        }
    };
}

everywhere!(memory, MemoryPlace::new();
    memory_only::a_scripted_failure_does_nothing,
    memory_only::an_unknown_commit_is_done_or_not,
    memory_only::a_hanging_call_goes_on_when_told,
    memory_only::a_refused_value_is_a_refusal_of_its_event,
);
everywhere!(sqlite, SqlitePlace::new();
    sqlite_only::v4_a_held_lock_is_transient,
    sqlite_only::foreign_and_missing_files_are_misconfigured,
    sqlite_only::a_tables_own_conflict_clauses_are_overridden,
    sqlite_only::manual_bookkeeping_is_never_made,
    sqlite_only::a_claim_is_for_the_physical_table,
    sqlite_only::the_file_is_wal_and_fully_synced,
    live::sqlite_types_are_resolved,
    live::sqlite_findings,
);
everywhere!(postgres, PostgresPlace::new();
    joins::s2_7_postgres_own_types,
    postgres_only::v3_trap8_a_cut_at_commit_is_resolved_by_the_checkpoint,
    postgres_only::v14_control_the_drivers_pool_loses_writes,
    slow_begin::v14_a_begin_that_timed_out_loses_no_write_on_postgres,
    postgres_only::v2_trap25_killed_sessions_are_replaced,
    postgres_only::v4_a_held_lock_is_transient,
    postgres_only::v4_the_server_limits_statements_and_idle_transactions,
    postgres_only::lanes_do_not_wait_for_each_other,
    postgres_only::a_refusal_at_commit_is_no_unknown_outcome,
    postgres_only::o34_credentials_of_any_bytes,
    postgres_only::o33_tls_is_verified,
    postgres_only::wrong_places_are_misconfigured_or_away,
    postgres_only::manual_bookkeeping_is_never_made,
    postgres_only::a_claim_is_for_the_physical_table,
    live::postgres_types_are_resolved,
    live::postgres_enums_and_domains_are_written,
    live::postgres_findings,
    live::trap13_postgres_privileges,
);
everywhere!(mariadb, MySqlPlace::mariadb();
    mysql_only::v3_trap8_a_cut_at_commit_is_resolved_by_the_checkpoint,
    slow_begin::v14_a_begin_that_timed_out_loses_no_write_on_mariadb,
    mysql_only::v2_trap25_killed_sessions_are_replaced,
    mysql_only::v4_a_held_lock_is_transient,
    mysql_only::v4_the_server_limits_statements_and_idle_transactions,
    mysql_only::lanes_do_not_wait_for_each_other,
    mysql_only::v5_a_deadlock_is_transient,
    mysql_only::trap3_a_second_unique_key_never_changes_a_strangers_row,
    mysql_only::keys_that_the_database_takes_for_one_are_refused,
    mysql_only::what_the_server_would_change_is_refused,
    mysql_only::a_counted_key_of_zero_is_zero,
    mysql_only::tables_without_transactions_are_refused,
    mysql_only::tables_made_meanwhile_commit_nothing_of_ours,
    mysql_only::o34_credentials_of_any_bytes,
    mysql_only::wrong_places_are_misconfigured_or_away,
    mysql_only::manual_bookkeeping_is_never_made,
    mysql_only::a_claim_is_for_the_physical_table,
    mysql_live::mariadb_types_are_resolved,
    mysql_live::mariadb_findings,
    mysql_live::trap13_mariadb_privileges,
);
// Only where somebody has a MySQL: none can be installed here.
everywhere!(mysql, MySqlPlace::mysql();
    mysql_only::v3_trap8_a_cut_at_commit_is_resolved_by_the_checkpoint,
    mysql_only::v2_trap25_killed_sessions_are_replaced,
    mysql_only::v4_a_held_lock_is_transient,
    mysql_only::lanes_do_not_wait_for_each_other,
    mysql_only::v5_a_deadlock_is_transient,
    mysql_only::trap3_a_second_unique_key_never_changes_a_strangers_row,
    mysql_only::keys_that_the_database_takes_for_one_are_refused,
    mysql_only::what_the_server_would_change_is_refused,
    mysql_only::a_counted_key_of_zero_is_zero,
    mysql_only::tables_without_transactions_are_refused,
    mysql_only::manual_bookkeeping_is_never_made,
    mysql_only::a_claim_is_for_the_physical_table,
);

everywhere!(mongodb, MongoPlace::new();
    mongodb_only::an_older_event_never_wins,
    mongodb_only::deleted_documents_leave_a_mark_for_a_while,
    mongodb_only::a_refused_batch_is_taken_back_whole,
    mongodb_only::a_truncation_is_taken_back_with_its_batch,
    mongodb_only::sums_are_exact_through_a_cut,
    mongodb_only::two_who_find_a_cut_batch_come_to_one_end,
    mongodb_only::who_was_taken_over_from_writes_nothing,
    mongodb_only::lanes_need_a_replica_set,
    mongodb_only::t4_values_are_never_operators,
    mongodb_only::a_list_in_a_list_is_kept_or_refused,
    mongodb_only::keys_stand_in_the_id,
    mongodb_only::marks_of_another_log_are_forgotten,
    mongodb_only::live_findings,
    mongodb_only::wrong_places_are_misconfigured_or_away,
    mongodb_only::manual_bookkeeping_is_never_made,
    traps::trap25_a_forgotten_idle_connection_is_replaced,
);

/// A server of each test's own.
mod mariadb_server {
    use gravity_conformance::view_suite::mysql_server;

    macro_rules! owned {
        ($($test:ident),* $(,)?) => {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    mysql_server::$test().await;
                }
            )*
        };
    }

    owned!(
        v2_a_crash_of_the_server_keeps_rows_and_checkpoint_together,
        v11_trap12_messages_keep_within_the_servers_limit,
        unfit_servers_are_refused_or_named,
        o33_tls_is_verified,
    );
}

/// One test of this file in a process of its own, with failpoints; `None` where it is skipped.
fn with_failpoints(test: &str, failpoints: &str) -> Option<bool> {
    let output = std::process::Command::new(std::env::current_exe().expect("a test has a path"))
        .args(["--exact", test, "--nocapture"])
        .env("GRAVITY_FAILPOINTS", failpoints)
        .output()
        .expect("this test runs again");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("running 1 test"), "{test} is not there: {said}");
    (!said.contains("skipped:")).then(|| output.status.success())
}

const PLACES: [&str; 5] = ["memory", "sqlite", "postgres", "mariadb", "mongodb"];

#[test]
fn v1_trap8_cuts_at_commit_keep_rows_and_checkpoint_together() {
    for place in PLACES {
        let test = format!("{place}::v1_rows_and_checkpoint_survive_a_cut_together");
        for point in [
            "view.before_commit=fail",
            "view.after_commit=fail",
            "view.before_commit=fail@2",
            "view.after_commit=fail@3",
        ] {
            match with_failpoints(&test, point) {
                Some(passed) => assert!(passed, "{test} with {point}"),
                None => println!("skipped: {place}, {point}"),
            }
        }
    }
}

/// A stand-alone MongoDB has a third moment, between its journal and its rows.
#[test]
fn v1_cuts_of_a_journalled_batch_lose_and_double_nothing() {
    for test in [
        "v1_rows_and_checkpoint_survive_a_cut_together",
        "sums_are_exact_through_a_cut",
        "two_who_find_a_cut_batch_come_to_one_end",
    ] {
        for point in ["view.after_journal=fail", "view.after_journal=fail@2", "view.before_commit=fail@2"] {
            match with_failpoints(&format!("mongodb::{test}"), point) {
                Some(passed) => assert!(passed, "{test} with {point}"),
                None => println!("skipped: mongodb, {point}"),
            }
        }
    }
}

/// The sabotages that the suite must notice: a gate that cannot fail shows nothing.
#[test]
fn sabotaged_stores_are_caught() {
    let apart = "view.checkpoint_apart=sabotage;view.before_commit=fail@2";
    for (place, part, sabotage) in [
        ("sqlite", "v1_rows_and_checkpoint_survive_a_cut_together", apart),
        ("postgres", "v1_rows_and_checkpoint_survive_a_cut_together", apart),
        ("mariadb", "v1_rows_and_checkpoint_survive_a_cut_together", apart),
        ("mongodb", "v1_rows_and_checkpoint_survive_a_cut_together", apart),
        ("memory", "begin_compares_each_part", "view.cas_without_owner=sabotage"),
        ("sqlite", "begin_compares_each_part", "view.cas_without_owner=sabotage"),
        ("postgres", "begin_compares_each_part", "view.cas_without_owner=sabotage"),
        ("mariadb", "begin_compares_each_part", "view.cas_without_owner=sabotage"),
        ("mongodb", "begin_compares_each_part", "view.cas_without_owner=sabotage"),
        ("mongodb", "an_older_event_never_wins", "mongodb.no_guard=sabotage"),
    ] {
        match with_failpoints(&format!("{place}::{part}"), sabotage) {
            Some(passed) => assert!(!passed, "{place}: {part} did not notice {sabotage}"),
            None => println!("skipped: {place}, {sabotage}"),
        }
    }
}

/// T1: values cannot become statement text, because only one module may call text a statement.
#[test]
fn t1_statement_text_is_trusted_in_one_module() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../connectors/src");
    let mut folders = vec![sources];
    let mut trusting = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).expect("a source").contains("AssertSqlSafe") {
                trusting.push(path.file_name().expect("a name").to_string_lossy().into_owned());
            }
        }
    }
    assert_eq!(trusting, ["statement.rs"]);
}
