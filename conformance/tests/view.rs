//! The view contract over the memory double, SQLite and PostgreSQL.

use gravity_conformance::view_contract;
use gravity_conformance::view_suite::{MemoryPlace, PostgresPlace, SqlitePlace};

/// Every test of the suite that all three run.
macro_rules! everywhere {
    ($module:ident, $place:expr; $($part:ident :: $more:ident),* $(,)?) => {
        view_contract! { $module, $place;
            bookkeeping::open_is_idempotent,
            bookkeeping::checkpoints_come_back_whole,
            bookkeeping::begin_compares_each_part,
            bookkeeping::rewrite_compares_each_part,
            bookkeeping::rows_and_checkpoint_move_together,
            bookkeeping::commit_moves_exactly_the_lanes_begun,
            bookkeeping::v12_a_zombie_writes_nothing,
            bookkeeping::v12_taking_over_waits_for_what_is_under_way,
            bookkeeping::a_table_belongs_to_one_route,
            bookkeeping::a_rewrite_is_whole_or_nothing,
            bookkeeping::v14_dropped_futures_lose_no_later_write,
            bookkeeping::o38_the_views_own_checkpoint_rules,
            operations::upsert_creates_and_changes,
            operations::absent_leaves_alone_and_null_writes_null,
            operations::on_create_fills_new_rows_only,
            operations::rows_of_keys_only,
            operations::o30_missing_rows_are_created_or_reported,
            operations::a_required_patch_is_refused_where_the_row_is_missing,
            operations::insert_of_the_same_row_counts_as_written,
            operations::o28_ten_thousand_events_twice,
            operations::o29_one_long_text_among_ten_thousand,
            operations::an_event_is_refused_alone,
            operations::after_a_fault_only_rollback_follows,
            operations::a_key_change_moves_the_row,
            operations::o32_truncate_in_its_order,
            operations::o36_composite_keys,
            operations::another_unique_key_is_a_refusal,
            operations::partial_updates_do_not_need_every_column,
            operations::large_groups_are_split,
            operations::v8_missing_tables_and_columns_stop_the_route,
            operations::an_empty_batch_moves_the_checkpoint,
            hostile::t1_ten_thousand_hostile_strings,
            hostile::a_nul_in_text_is_kept_or_refused,
            hostile::t5_huge_values_are_refused,
            hostile::o35_hostile_names_are_refused,
            hostile::o35_reserved_words_and_case_are_plain_names,
            types::every_type_comes_back_exactly,
            types::o36_every_key_type,
            catalogue::a_missing_table_is_proposed_and_made,
            catalogue::a_live_table_is_described,
            catalogue::inspect_names_what_is_missing,
            $($part::$more,)*
        }
    };
}

everywhere!(memory, MemoryPlace::new(););
everywhere!(sqlite, SqlitePlace::new(););
everywhere!(postgres, PostgresPlace::new(););
