use crate::model::Source;

/// Prefixes that sources coming in order are held against, for less than a look-up each.
#[derive(Debug, Default)]
pub struct Walk {
    /// By family, which lie in turn inside the other's numbers: in order, none inside another.
    prefixes: [Vec<Source>; 2],
    at: [usize; 2],
}

impl FromIterator<Source> for Walk {
    fn from_iter<I: IntoIterator<Item = Source>>(prefixes: I) -> Self {
        let mut walk = Self::default();
        for prefix in prefixes {
            walk.prefixes[usize::from(prefix.is_ipv4())].push(prefix);
        }
        for family in &mut walk.prefixes {
            family.sort_unstable();
            family.dedup_by(|next, kept| kept.contains(next));
        }
        walk
    }
}

impl Walk {
    /// Whether one of the prefixes holds all of `source`. Sources come in order.
    pub fn covers(&mut self, source: &Source) -> bool {
        let family = usize::from(source.is_ipv4());
        let at = &mut self.at[family];
        while let Some(prefix) = self.prefixes[family].get(*at) {
            if prefix.contains(source) {
                return true;
            }
            if prefix > source {
                return false;
            }
            *at += 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom the prefixes cover, of sources in order.
    fn covered(prefixes: &[&str], sources: &[&str]) -> Vec<String> {
        let mut walk: Walk = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        let mut sources: Vec<Source> = sources.iter().map(|text| text.parse().unwrap()).collect();
        sources.sort();
        let covered = sources.into_iter().filter(|source| walk.covers(source));
        covered.map(|source| source.to_string()).collect()
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
