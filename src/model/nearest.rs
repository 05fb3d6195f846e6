/// The word most like `given`, if any is like it: at most one letter in three is wrong.
pub fn nearest<'a>(given: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (given.chars().count() + 1) / 3;
    words
        .map(|word| (distance(given, word), word))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, word)| word)
}

/// Letters to insert, delete or replace, or neighbours to swap, to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_counted_once() {
        for (a, b, slips) in [
            ("syn", "syn", 0),
            ("snn", "syn", 1),
            ("idp", "ipd", 1),
            ("softat", "soft_at", 1),
            ("", "abc", 3),
            ("web-sever", "web-server", 1),
        ] {
            assert_eq!(distance(a, b), slips, "{a} {b}");
            assert_eq!(distance(b, a), slips, "{b} {a}");
        }
    }

    #[test]
    fn only_a_word_that_is_like_it_is_offered() {
        let words = ["soft_at", "hard_at", "block_at"];
        assert_eq!(nearest("sofd_at", words.into_iter()), Some("soft_at"));
        assert_eq!(nearest("threshold", words.into_iter()), None);
    }
}
