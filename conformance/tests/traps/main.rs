//! The peers' traps and the original's defects over a whole engine and every database, each by its number (docs/traps.md).

mod batch;
mod process;
mod running;
mod source;
mod statements;
mod target;
mod values;

use target::Target;

/// Each test with each of these databases.
macro_rules! over {
    ($tests:tt; $($module:ident),* $(,)?) => {
        $( over!(@ $module $tests); )*
    };
    (@ $module:ident { $($part:ident :: $test:ident),* $(,)? }) => {
        mod $module {
            use super::*;

            $(
                #[test]
                fn $test() {
                    if let Some(target) = Target::$module() {
                        $part::$test(&target);
                        target.remove();
                    }
                }
            )*
        }
    };
}

over!({
    batch::trap1_two_events_of_one_key_in_one_batch,
    batch::trap2_interleaved_deletes_end_as_in_log_order,
    batch::trap3_values_that_change_hands_in_one_batch,
    batch::trap4_a_key_change_takes_the_row_along_and_odd_keys_park,
    batch::trap5_nothing_but_a_key_and_nothing_at_all,
    batch::trap10_deletes_of_rows_that_never_were,
    batch::o3_two_projections_of_one_event_are_two_rows,
    values::trap11_a_field_that_is_whole_then_a_fraction_then_a_text,
    values::trap14_trap19_poison_stops_only_its_keys_and_is_all_accounted_for,
    running::trap6_inserts_sent_again_after_a_crash,
    running::trap13_what_a_dba_takes_away_stops_the_route_and_comes_back,
    running::trap13_a_dropped_table_is_not_made_anew,
    running::trap16_a_route_that_stands_still_says_why,
    running::trap23_a_clock_that_was_set_back,
    running::trap24_no_room_in_the_database_parks_nothing,
}; sqlite, postgres, mariadb, mongodb);
