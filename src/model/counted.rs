use std::fmt::Display;

/// `1 edge is`, `0 edges are`, `5 edges are`.
pub fn counted<N: Display + PartialEq + From<bool>>(count: N, one: &str, many: &str) -> String {
    let what = if count == N::from(true) { one } else { many };
    format!("{count} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_none_is_many() {
        let edges = |count: usize| counted(count, "edge is", "edges are");
        assert_eq!(
            [0, 1, 2, 21].map(edges),
            ["0 edges are", "1 edge is", "2 edges are", "21 edges are"]
        );
    }
}
