//! The built-in shop: customers register, orders are placed, paid, shipped, cancelled. The same seed gives the same events.

use std::collections::VecDeque;
use std::fmt::Write;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const NAMES: &[&str] = &["Ada", "Bo", "Chen", "Dara", "Emil", "Fatou", "Gita", "Hugo", "Ines", "Jun", "Kofi", "Lena"];
const CITIES: &[&str] = &["Taipei", "Lagos", "Lima", "Oslo", "Pune", "Quito", "Turin", "Osaka"];
const METHODS: &[&str] = &["card", "transfer", "wallet"];

/// Orders that are not shipped yet; more than a busy shop has at one time.
const OPEN_ORDERS: usize = 5_000;

/// Events of one shop, one after the other.
pub struct Shop {
    random: StdRng,
    customers: u64,
    orders: u64,
    payments: u64,
    open: VecDeque<(u64, u64)>,
    /// Minutes of the shop's own clock, so that nothing depends on ours.
    minute: u64,
}

impl Shop {
    pub fn new(seed: u64) -> Shop {
        Shop {
            random: StdRng::seed_from_u64(seed),
            customers: 0,
            orders: 0,
            payments: 0,
            open: VecDeque::new(),
            minute: 0,
        }
    }

    /// Appends the next event as one line of JSON.
    pub fn next_line(&mut self, out: &mut String) {
        self.minute += 1;
        let dice = self.random.random_range(0..100);
        // Writing into a String cannot fail.
        let _ = match dice {
            _ if self.customers == 0 => self.register(out),
            0..8 => self.register(out),
            8..14 => {
                let (id, city) = (self.customer(), self.pick(CITIES));
                writeln!(out, r#"{{"event":"customerMoved","payload":{{"id":{id},"city":"{city}"}}}}"#)
            }
            14..52 => self.order(out),
            52..78 => self.pay(out),
            78..88 => self.ship(out),
            88..92 => self.cancel(out),
            // No rule names it: the balance shows it as unmatched.
            _ => {
                let id = self.customer();
                writeln!(out, r#"{{"event":"pageViewed","payload":{{"customer":{id},"page":"/sale"}}}}"#)
            }
        };
    }

    fn pick(&mut self, from: &'static [&'static str]) -> &'static str {
        from[self.random.random_range(0..from.len())]
    }

    fn customer(&mut self) -> u64 {
        self.random.random_range(1..=self.customers)
    }

    fn register(&mut self, out: &mut String) -> std::fmt::Result {
        self.customers += 1;
        let (id, name, city) = (self.customers, self.pick(NAMES), self.pick(CITIES));
        let mail = name.to_lowercase();
        writeln!(
            out,
            r#"{{"event":"customerRegistered","payload":{{"id":{id},"name":"{name}","email":"{mail}.{id}@example.com","city":"{city}"}}}}"#
        )
    }

    fn order(&mut self, out: &mut String) -> std::fmt::Result {
        self.orders += 1;
        let (id, customer) = (self.orders, self.customer());
        let (cents, items) = (self.random.random_range(199..250_000u64), self.random.random_range(1..9));
        self.open.push_back((id, cents));
        if self.open.len() > OPEN_ORDERS {
            self.open.pop_front();
        }
        let minute = self.minute;
        let (day, hour, min) = (1 + minute / 1440 % 28, minute / 60 % 24, minute % 60);
        writeln!(
            out,
            r#"{{"event":"orderPlaced","payload":{{"order":{{"id":{id},"customer":{customer},"total":"{}.{:02}","items":{items},"placedAt":"2026-03-{day:02}T{hour:02}:{min:02}:00Z"}}}}}}"#,
            cents / 100,
            cents % 100
        )
    }

    fn open_order(&mut self) -> Option<(u64, u64)> {
        let index = self.random.random_range(0..self.open.len().max(1));
        self.open.get(index).copied()
    }

    fn pay(&mut self, out: &mut String) -> std::fmt::Result {
        let Some((order, cents)) = self.open_order() else { return self.order(out) };
        self.payments += 1;
        let (id, method) = (self.payments, self.pick(METHODS));
        writeln!(
            out,
            r#"{{"event":"paymentReceived","payload":{{"id":{id},"order":{order},"amount":"{}.{:02}","method":"{method}"}}}}"#,
            cents / 100,
            cents % 100
        )
    }

    fn ship(&mut self, out: &mut String) -> std::fmt::Result {
        let Some((order, _)) = self.open.pop_front() else { return self.order(out) };
        writeln!(out, r#"{{"event":"orderShipped","payload":{{"order":{{"id":{order}}}}}}}"#)
    }

    fn cancel(&mut self, out: &mut String) -> std::fmt::Result {
        let Some((order, _)) = self.open.pop_back() else { return self.order(out) };
        writeln!(out, r#"{{"event":"orderCancelled","payload":{{"order":{{"id":{order}}}}}}}"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(seed: u64, count: usize) -> String {
        let (mut shop, mut out) = (Shop::new(seed), String::new());
        (0..count).for_each(|_| shop.next_line(&mut out));
        out
    }

    #[test]
    fn one_seed_gives_one_shop_and_every_line_is_an_event() {
        let text = lines(7, 2_000);
        assert_eq!(text, lines(7, 2_000));
        assert_ne!(text, lines(8, 2_000));
        let mut names = std::collections::BTreeSet::new();
        for line in text.lines() {
            let event: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            assert!(event["payload"].is_object());
            names.insert(event["event"].as_str().expect("a name").to_owned());
        }
        assert_eq!(text.lines().count(), 2_000);
        assert_eq!(names.len(), 7);
    }
}
