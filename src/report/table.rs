/// Rows of text under headings; numbers to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned).to_vec()],
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                cells(column)
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let numeric: Vec<bool> = (0..columns)
            .map(|column| {
                cells(column).skip(1).all(|cell| {
                    cell.starts_with(|c: char| c.is_ascii_digit())
                        && !cell.contains([':', '/'])
                        && cell.matches('.').count() < 2
                })
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let line: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| {
                    let width = widths[column];
                    if numeric[column] {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:<width$}")
                    }
                })
                .collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_and_addresses_to_the_left() {
        let mut table = Table::new(["reason", "packets", "source"]);
        table.row([
            "pass".to_owned(),
            "12345".to_owned(),
            "192.0.2.1".to_owned(),
        ]);
        table.row([
            "within-limit".to_owned(),
            "7".to_owned(),
            "2001:db8::/64".to_owned(),
        ]);
        assert_eq!(
            table.render(),
            "reason        packets  source\n\
             pass            12345  192.0.2.1\n\
             within-limit        7  2001:db8::/64\n"
        );
    }
}
