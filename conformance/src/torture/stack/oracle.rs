//! What the tables, exports and dead letters must be: a fold of the journal's items, written without looking at Gravity's code.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::arms::Store;
use super::documents::shown;
use super::journal::Knowledge;
use super::script::{Act, Item, SHARE, User};

/// A row of `orders` beside its key (entity, number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Four digits after the point.
    pub total: String,
    pub state: String,
}

/// What becomes of an item on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    Applied,
    /// A patch that found no row, or an event that the route's filters do not let through.
    Filtered,
    /// No rule, or no JSON.
    Unmatched,
    /// Parked with an error of its own.
    Failed,
    /// Parked behind a parked event of one of its view keys.
    Waiting,
}

/// The right end of a run on one route. The same for every route with the same rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    pub users: BTreeMap<i64, User>,
    pub orders: BTreeMap<(i64, i64), Order>,
    /// Items with a row in `audit`, whose key is the event's sequence: an event that is twice in the log is here twice.
    pub audit: BTreeSet<u64>,
    /// By item, for those that are in the log.
    pub fates: BTreeMap<u64, Fate>,
    /// Dead letters of the pseudo-route `ingest`.
    pub undecodable: BTreeSet<u64>,
}

impl Expectation {
    pub fn count(&self, fate: Fate) -> u64 {
        self.fates.values().filter(|f| **f == fate).count() as u64
    }
}

/// Decides which items are in the log: `Must` are, `May` are if they were `found` there.
pub fn in_log(known: &HashMap<u64, Knowledge>, found: &HashSet<u64>) -> BTreeSet<u64> {
    known
        .iter()
        .filter(|(index, knowledge)| match knowledge {
            Knowledge::Must => true,
            Knowledge::May => found.contains(*index),
            Knowledge::MustNot => false,
        })
        .map(|(index, _)| *index)
        .collect()
}

/// Key of one row of one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ViewKey {
    User(i64),
    Order(i64, i64),
}

/// What a store is to hold in the end.
pub fn of_store(store: Store, items: impl Iterator<Item = Item>, in_log: &BTreeSet<u64>) -> Expectation {
    if store != Store::MongoDb {
        return fold(items, in_log);
    }
    let mut end = fold_share(items, in_log, SHARE);
    let amounts = end.users.values_mut().filter_map(|user| user.amount.as_mut());
    for amount in amounts.chain(end.orders.values_mut().map(|order| &mut order.total)) {
        // The nearest double; what is no number would stay as it is, and differ.
        if let Ok(number) = amount.parse() {
            *amount = shown(number);
        }
    }
    end
}

/// Folds the items that are in the log, in the order of the script (which is each entity's order).
pub fn fold(items: impl Iterator<Item = Item>, in_log: &BTreeSet<u64>) -> Expectation {
    fold_share(items, in_log, u64::MAX)
}

/// The same where filters let entities below `share` through. They ask the payload: one without an id is of no entity.
fn fold_share(items: impl Iterator<Item = Item>, in_log: &BTreeSet<u64>, share: u64) -> Expectation {
    let mut end = Expectation::default();
    let mut blocked: HashSet<ViewKey> = HashSet::new();
    let Some(last) = in_log.last() else { return end };
    for item in items.take_while(|item| item.index <= *last).filter(|item| in_log.contains(&item.index)) {
        let is_named = !matches!(item.act, Act::Unknown | Act::Malformed);
        if is_named && (item.entity >= share || (share < u64::MAX && item.act == Act::NoKey)) {
            end.fates.insert(item.index, Fate::Filtered);
            continue;
        }
        let keys = view_keys(&item);
        // What is wrong by itself, whatever the tables hold, needs a retry of its own; it does not merely wait.
        let wrong = matches!(item.act, Act::WrongType | Act::WrongTotal { .. } | Act::NoKey);
        let waits = !wrong && keys.iter().any(|key| blocked.contains(key));
        let fate = if waits { Fate::Waiting } else { apply(&item, &mut end) };
        match fate {
            Fate::Failed | Fate::Waiting => blocked.extend(keys),
            Fate::Applied => drop(end.audit.insert(item.index)),
            Fate::Filtered | Fate::Unmatched => {}
        }
        if item.act == Act::Malformed {
            end.undecodable.insert(item.index);
        }
        end.fates.insert(item.index, fate);
    }
    end
}

/// Rows that the item reads or writes, the audit row excepted: nobody else shares that.
fn view_keys(item: &Item) -> Vec<ViewKey> {
    match &item.act {
        Act::Create(_) | Act::Rename(_) | Act::ClearEmail | Act::Delete | Act::WrongType => {
            vec![ViewKey::User(item.id)]
        }
        Act::Move { from } => vec![ViewKey::User(*from), ViewKey::User(item.id)],
        Act::Place { number, .. } | Act::Ship { number } | Act::WrongTotal { number } => {
            vec![ViewKey::Order(item.entity as i64, *number)]
        }
        Act::NoKey | Act::Unknown | Act::Malformed => Vec::new(),
    }
}

fn apply(item: &Item, end: &mut Expectation) -> Fate {
    match &item.act {
        Act::Create(user) => {
            end.users.insert(item.id, user.clone());
        }
        Act::Rename(name) => end.users.entry(item.id).or_default().name = Some(name.clone()),
        Act::ClearEmail => end.users.entry(item.id).or_default().email = None,
        Act::Move { from } => {
            let row = end.users.remove(from).unwrap_or_default();
            end.users.insert(item.id, row);
        }
        Act::Delete => {
            end.users.remove(&item.id);
        }
        Act::Place { number, total } => {
            let order = Order { total: total.clone(), state: "placed".to_owned() };
            end.orders.insert((item.entity as i64, *number), order);
        }
        // The audit rule writes a row even where the patch finds none, so the event counts as applied.
        Act::Ship { number } => {
            if let Some(order) = end.orders.get_mut(&(item.entity as i64, *number)) {
                order.state = "shipped".to_owned();
            }
        }
        Act::WrongType | Act::WrongTotal { .. } | Act::NoKey => return Fate::Failed,
        Act::Unknown | Act::Malformed => return Fate::Unmatched,
    }
    Fate::Applied
}

#[cfg(test)]
mod tests {
    use super::super::arms::{FEW, Lane};
    use super::super::script::{MOVED, Plan};
    use super::*;

    fn script() -> impl Iterator<Item = Item> {
        Plan { seed: 1, entities: 100, lanes: FEW.lanes }.script()
    }

    fn item(index: u64, id: i64, act: Act) -> Item {
        Item { index, entity: 1, lane: Lane::Http, act, id }
    }

    fn folded(items: &[Item]) -> Expectation {
        fold(items.iter().cloned(), &items.iter().map(|item| item.index).collect())
    }

    fn named(name: &str) -> User {
        User { name: Some(name.to_owned()), ..User::default() }
    }

    #[test]
    fn absent_fields_stay_and_null_is_null() {
        let whole = User { email: Some("e".to_owned()), age: Some(3), ..named("a") };
        let end = folded(&[
            item(0, 1, Act::Create(whole.clone())),
            item(1, 1, Act::Rename("b".to_owned())),
            item(2, 1, Act::ClearEmail),
        ]);
        assert_eq!(
            end.users,
            BTreeMap::from([(1, User { email: None, ..User { name: Some("b".to_owned()), ..whole } })])
        );
        assert_eq!(end.audit, BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn a_move_takes_the_row_along_and_creates_it_where_there_is_none() {
        let end = folded(&[item(0, 1, Act::Create(named("a"))), item(1, 101, Act::Move { from: 1 })]);
        assert_eq!(end.users, BTreeMap::from([(101, named("a"))]));
        let end = folded(&[item(0, 101, Act::Move { from: 1 })]);
        assert_eq!(end.users, BTreeMap::from([(101, User::default())]));
    }

    #[test]
    fn what_follows_a_parked_event_waits_and_blocks_its_own_keys() {
        let end = folded(&[
            item(0, 1, Act::Create(named("a"))),
            item(1, 1, Act::WrongType),
            item(2, 101, Act::Move { from: 1 }),
            item(3, 101, Act::Rename("b".to_owned())),
            item(4, 1, Act::Place { number: 4, total: "1.0000".to_owned() }),
            item(5, 1, Act::NoKey),
            item(6, 101, Act::WrongType),
        ]);
        let fates: Vec<Fate> = end.fates.values().copied().collect();
        use Fate::{Applied, Failed, Waiting};
        assert_eq!(fates, [Applied, Failed, Waiting, Waiting, Applied, Failed, Failed]);
        assert_eq!(end.users, BTreeMap::from([(1, named("a"))]));
        assert_eq!(end.audit, BTreeSet::from([0, 4]));
    }

    #[test]
    fn a_share_has_whole_histories_and_filters_the_rest() {
        let all: BTreeSet<u64> = (0..20_000).collect();
        let items = || Plan { seed: 1, entities: 300, lanes: FEW.lanes }.script();
        let (whole, part) = (fold(items(), &all), of_store(Store::MongoDb, items(), &all));
        assert!(
            part.count(Fate::Applied) > 2_000 && part.count(Fate::Failed) > 0 && part.count(Fate::Filtered) > 8_000
        );
        assert_eq!(part.count(Fate::Unmatched), whole.count(Fate::Unmatched));
        assert_eq!(part.undecodable, whole.undecodable);
        let ids: Vec<i64> = whole.users.keys().copied().filter(|id| id % MOVED < SHARE as i64).collect();
        assert_eq!(part.users.keys().copied().collect::<Vec<_>>(), ids);
        let named = |end: &Expectation| ids.iter().map(|id| end.users[id].name.clone()).collect::<Vec<_>>();
        assert_eq!(named(&part), named(&whole));
    }

    #[test]
    fn unacknowledged_items_count_only_where_they_were_found() {
        let known =
            HashMap::from([(0, Knowledge::Must), (1, Knowledge::May), (2, Knowledge::May), (3, Knowledge::MustNot)]);
        assert_eq!(in_log(&known, &HashSet::from([1, 3])), BTreeSet::from([0, 1]));
    }

    #[test]
    fn a_lost_item_shows() {
        let all: BTreeSet<u64> = (0..5_000).collect();
        let whole = fold(script(), &all);
        assert!(whole.users.len() > 50 && whole.orders.len() > 500 && whole.count(Fate::Waiting) > 0);
        // Whichever item is taken away, something is different.
        for lost in (0..5_000).step_by(97) {
            let mut rest = all.clone();
            rest.remove(&lost);
            assert_ne!(fold(script(), &rest), whole, "item {lost}");
        }
    }
}
