use crate::model::Source;
use crate::telemetry::{InOrder, Order};

/// Addresses and prefixes that sources coming in order are held against: a step for each address, and
/// a search among the prefixes.
#[derive(Debug, Default)]
pub struct Walk {
    order: Order,
    hosts: InOrder<()>,
    /// By family, which lie in turn inside the other's numbers: sorted, none inside another.
    prefixes: [Vec<Source>; 2],
}

impl Walk {
    /// For sources that come in `order`.
    pub fn new(covered: impl IntoIterator<Item = Source>, order: Order) -> Self {
        let (mut hosts, mut prefixes) = (Vec::new(), <[Vec<Source>; 2]>::default());
        for source in covered {
            if source.bits() == 128 {
                hosts.push((source, ()));
            } else {
                prefixes[usize::from(source.is_ipv4())].push(source);
            }
        }
        for family in &mut prefixes {
            family.sort_unstable();
            family.dedup_by(|next, kept| kept.contains(next));
        }
        Self {
            hosts: InOrder::new(hosts, &order),
            prefixes,
            order,
        }
    }

    /// Whether one of them holds all of `source`. Sources come in order.
    pub fn covers(&mut self, source: &Source) -> bool {
        self.hosts.of(&self.order.key(*source)).is_some() || self.is_inside(source)
    }

    fn is_inside(&self, source: &Source) -> bool {
        let family = &self.prefixes[usize::from(source.is_ipv4())];
        // The last that begins no later; one that begins with it may be longer.
        let next = family.partition_point(|prefix| prefix <= source);
        let last = next.checked_sub(1).and_then(|at| family.get(at));
        last.is_some_and(|prefix| prefix.contains(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom these cover, of sources in order.
    fn covered_in(order: Order, prefixes: &[&str], sources: &[&str]) -> Vec<String> {
        let parsed = |text: &&str| text.parse::<Source>().unwrap();
        let mut walk = Walk::new(prefixes.iter().map(parsed), order);
        let mut sources: Vec<Source> = sources.iter().map(parsed).collect();
        sources.sort_by_key(|source| order.key(*source));
        sources.retain(|source| walk.covers(source));
        sources.sort();
        sources.iter().map(ToString::to_string).collect()
    }

    fn covered(prefixes: &[&str], sources: &[&str]) -> Vec<String> {
        let table = Order::of_table([3, 1 << 31, 5 << 30, 7 << 31, 9 << 30], 7);
        let by_source = covered_in(Order::BY_SOURCE, prefixes, sources);
        assert_eq!(covered_in(table, prefixes, sources), by_source);
        by_source
    }

    #[test]
    fn a_walk_finds_who_is_inside_whatever_overlaps_and_whatever_the_family() {
        let sources = [
            "::/64",
            "10.0.0.1",
            "10.1.2.3",
            "10.1.2.4",
            "10.2.0.0",
            "192.0.2.7",
            "2001:db8::/64",
            "2001:db8:1::/64",
        ];
        let inside = ["10.1.2.3", "10.1.2.4", "192.0.2.7", "2001:db8:1::/64"];
        let nested = ["192.0.2.7", "10.1.2.3", "10.1.0.0/16", "2001:db8:1::/48"];
        assert_eq!(covered(&nested, &sources), inside);
        let hosts = ["10.2.0.0", "10.0.0.1", "192.0.2.8"];
        assert_eq!(covered(&hosts, &sources), ["10.0.0.1", "10.2.0.0"]);
        assert_eq!(
            covered(&["::/0"], &sources),
            ["::/64", "2001:db8::/64", "2001:db8:1::/64"]
        );
        assert_eq!(covered(&["0.0.0.0/0"], &sources).len(), 5);
        // A part of it being exempt does not make a source so.
        assert!(covered(&["2001:db8::1"], &sources).is_empty());
        assert!(covered(&[], &sources).is_empty());
    }
}
