//! A strict reader of the text format: what Prometheus would accept with a shrug is an error here.

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

#[derive(Debug)]
pub struct Exposition {
    types: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    /// Every sample stands under the HELP and TYPE of its family, families do not repeat, no two
    /// samples are the same, counters end in `_total`, histograms are whole and rise.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut page = Self {
            types: BTreeMap::new(),
            samples: Vec::new(),
        };
        if !text.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        let mut helped = None;
        let mut family: Option<(String, String)> = None;
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or("HELP without text")?;
                if !help.ends_with('.') {
                    return Err(format!("{name}: help is no sentence"));
                }
                helped = Some(name.to_owned());
                family = None;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or("TYPE without kind")?;
                if helped.as_deref() != Some(name) {
                    return Err(format!("{name}: TYPE without HELP before it"));
                }
                if (kind == "counter") != name.ends_with("_total") {
                    return Err(format!("{name}: a {kind} with that name"));
                }
                if page
                    .types
                    .insert(name.to_owned(), kind.to_owned())
                    .is_some()
                {
                    return Err(format!("{name} comes twice"));
                }
                family = Some((name.to_owned(), kind.to_owned()));
            } else {
                let (name, labels, value) = sample(line).ok_or(format!("no sample: {line}"))?;
                let (base, kind) = family.as_ref().ok_or(format!("of no family: {line}"))?;
                let suffix = name
                    .strip_prefix(base.as_str())
                    .ok_or(format!("not of {base}: {line}"))?;
                let suffixes: &[&str] = match kind.as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "counter" | "gauge" => &[""],
                    other => return Err(format!("unknown type {other}")),
                };
                if !suffixes.contains(&suffix) {
                    return Err(format!("not of {base}: {line}"));
                }
                if !seen.insert((name.clone(), labels.clone())) {
                    return Err(format!("twice: {line}"));
                }
                page.samples.push((name, labels, value));
            }
        }
        page.check_histograms()?;
        Ok(page)
    }

    fn check_histograms(&self) -> Result<(), String> {
        for (name, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let bucket = format!("{name}_bucket");
            let buckets: Vec<(&str, f64)> = self
                .samples
                .iter()
                .filter(|(sample, ..)| *sample == bucket)
                .filter_map(|(_, labels, value)| Some((labels.get("le")?.as_str(), *value)))
                .collect();
            if !buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1) {
                return Err(format!("{name}: buckets fall"));
            }
            let count = self.value(&format!("{name}_count"), &[]);
            if buckets.last() != Some(&("+Inf", count.ok_or("no count")?)) {
                return Err(format!("{name}: the last bucket is not the count"));
            }
        }
        Ok(())
    }

    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// Names of samples, as a query would say them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.iter().map(|(name, ..)| name.as_str())
    }

    /// Samples on the page, which is what they cost a scraper.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Labels = labels
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect();
        self.samples
            .iter()
            .find(|(sample, labels, _)| sample == name && *labels == wanted)
            .map(|(.., value)| *value)
    }
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        text => text.parse().ok().filter(|value: &f64| value.is_finite())?,
    };
    let (name, mut rest) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let wordlike = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (label, tail) = rest.split_once("=\"")?;
        let (value, tail) = tail.split_once('"')?;
        if !wordlike(label) || value.contains('\\') || labels.contains_key(label) {
            return None;
        }
        labels.insert(label.to_owned(), value.to_owned());
        rest = match tail.strip_prefix(',') {
            Some(more) if !more.is_empty() => more,
            Some(_) => return None,
            None if tail.is_empty() => "",
            None => return None,
        };
    }
    wordlike(name).then(|| (name.to_owned(), labels, value))
}

#[test]
fn the_reader_refuses_what_is_not_clean() {
    let head = "# HELP k_total Things.\n# TYPE k_total counter\n";
    let ok = |body: &str| Exposition::read(&format!("{head}{body}")).is_ok();
    assert!(ok("k_total{a=\"x\"} 1\nk_total{a=\"y\"} 1\n"));
    for body in [
        "k_total{a=\"x\"} 1\nk_total{a=\"x\"} 1\n",
        "k_total 1",
        "other_total 1\n",
        "k_total{a=\"x\",} 1\n",
        "k_total NaN\n",
        "# HELP k_total Things.\n# TYPE k_total counter\n",
        "# HELP k Things.\n# TYPE k counter\n",
    ] {
        assert!(!ok(body), "{body}");
    }
}
