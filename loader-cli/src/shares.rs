//! Where the bytes of a table go: to its sections, and for its rows to the directories of source files.
//!
//! The bytes of a section are exact. Those of a directory are an estimate, for rows are encoded together:
//! each row counts as much as the mean of its region.

use std::collections::BTreeMap;

use lineinfo_core::Table;

/// What is called by the path of a directory that has no name: rows without a line.
pub(crate) const NO_LINE: &str = "(no line)";

/// A directory of source files, with all that is below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Directory {
    /// Bytes of the table that its rows take, estimated.
    pub(crate) bytes: f64,
    /// How many rows name a file in it.
    pub(crate) entries: u64,
    /// Bytes of text that these rows are for.
    pub(crate) text_bytes: u64,
    /// The directories in it, by name.
    pub(crate) children: BTreeMap<String, Self>,
}

impl Directory {
    /// The directories of the rows of a table, in one that has no name.
    pub(crate) fn of_table(table: &Table<'_>) -> Self {
        let mut files = vec![Self::default(); table.layout().files() as usize];
        let mut no_line = Self::default();
        for (position, region) in table.regions().enumerate() {
            let bytes = (region.table.end - region.table.start) as f64;
            let mean = bytes / f64::from(region.rows.max(1));
            let mut rows = table.region_rows(position).peekable();
            while let Some(row) = rows.next() {
                let end = rows.peek().map_or(region.len, |next| next.start);
                let file = match row.is_gap() {
                    true => &mut no_line,
                    false => &mut files[row.file as usize],
                };
                file.bytes += mean;
                file.entries += 1;
                file.text_bytes += u64::from(end - row.start);
            }
        }
        let mut root = Self::default();
        for (file, name) in files.iter().zip(table.files()) {
            let name = name.to_string();
            let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
            root.add(directory, file);
        }
        if no_line.entries > 0 {
            root.add(NO_LINE, &no_line);
        }
        root
    }

    fn add(&mut self, path: &str, of: &Self) {
        let mut directory = self;
        let names = path.split('/').filter(|name| !name.is_empty());
        directory.count(of);
        for name in names {
            directory = directory.children.entry(name.to_owned()).or_default();
            directory.count(of);
        }
    }

    fn count(&mut self, of: &Self) {
        self.bytes += of.bytes;
        self.entries += of.entries;
        self.text_bytes += of.text_bytes;
    }

    /// The directories in it, by descending bytes.
    pub(crate) fn largest_first(&self) -> Vec<(&str, &Self)> {
        let children = self.children.iter();
        let mut children: Vec<_> = children
            .map(|(name, child)| (name.as_str(), child))
            .collect();
        children.sort_by(|(_, one), (_, other)| other.bytes.total_cmp(&one.bytes));
        children
    }
}

/// A rectangle of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rectangle {
    /// Its left edge.
    pub(crate) x: f64,
    /// Its upper edge.
    pub(crate) y: f64,
    /// Its width.
    pub(crate) width: f64,
    /// Its height.
    pub(crate) height: f64,
}

/// Divides a rectangle by weights, which descend, into ones that are nearly square.
///
/// Bruls, Huizing and van Wijk, "Squarified Treemaps", 2000: rows along the shorter side are filled as
/// long as that makes their worst rectangle no worse.
pub(crate) fn treemap(weights: &[f64], mut free: Rectangle) -> Vec<Rectangle> {
    let sum: f64 = weights.iter().sum();
    let scale = free.width * free.height / sum;
    let areas: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
    let mut rectangles = Vec::with_capacity(areas.len());
    let mut rest = &areas[..];
    while !rest.is_empty() {
        let side = free.width.min(free.height);
        let worst = |row: &[f64]| {
            let sum: f64 = row.iter().sum();
            let ratio = |area: &f64| {
                let ratio = side * side * area / (sum * sum);
                ratio.max(1.0 / ratio)
            };
            row.iter().map(ratio).fold(0.0, f64::max)
        };
        let mut len = 1;
        while len < rest.len() && worst(&rest[..=len]) <= worst(&rest[..len]) {
            len += 1;
        }
        let (row, after) = rest.split_at(len);
        let depth = row.iter().sum::<f64>() / side;
        let mut along = 0.0;
        for area in row {
            let length = area / depth;
            rectangles.push(match free.width >= free.height {
                true => Rectangle {
                    y: free.y + along,
                    width: depth,
                    height: length,
                    ..free
                },
                false => Rectangle {
                    x: free.x + along,
                    width: length,
                    height: depth,
                    ..free
                },
            });
            along += length;
        }
        match free.width >= free.height {
            true => {
                free.x += depth;
                free.width -= depth;
            }
            false => {
                free.y += depth;
                free.height -= depth;
            }
        }
        rest = after;
    }
    rectangles
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Rectangle = Rectangle {
        x: 10.0,
        y: 20.0,
        width: 600.0,
        height: 400.0,
    };

    #[test]
    fn the_example_of_the_paper() {
        let free = Rectangle {
            x: 0.0,
            y: 0.0,
            width: 6.0,
            height: 4.0,
        };
        let rectangles = treemap(&[6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0], free);
        let sizes: Vec<_> = rectangles
            .iter()
            .map(|one| (one.width, one.height))
            .collect();
        assert_eq!(sizes[..2], [(3.0, 2.0), (3.0, 2.0)]);
        assert!((sizes[2].0 - 12.0 / 7.0).abs() < 1e-9, "{sizes:?}");
    }

    proptest! {
        #[test]
        fn areas_are_as_the_weights_and_nothing_overlaps(
            mut weights in proptest::collection::vec(0.1_f64..1000.0, 1..40)
        ) {
            weights.sort_by(|one, other| other.total_cmp(one));
            let rectangles = treemap(&weights, ALL);
            prop_assert_eq!(rectangles.len(), weights.len());
            let scale = ALL.width * ALL.height / weights.iter().sum::<f64>();
            for (one, weight) in rectangles.iter().zip(&weights) {
                prop_assert!((one.width * one.height - weight * scale).abs() < 1e-6);
                prop_assert!(one.x >= ALL.x - 1e-6 && one.y >= ALL.y - 1e-6);
                prop_assert!(one.x + one.width <= ALL.x + ALL.width + 1e-6);
                prop_assert!(one.y + one.height <= ALL.y + ALL.height + 1e-6);
            }
            for (position, one) in rectangles.iter().enumerate() {
                for other in &rectangles[..position] {
                    let apart = |a: f64, a_len: f64, b: f64, b_len: f64| {
                        a + a_len <= b + 1e-6 || b + b_len <= a + 1e-6
                    };
                    prop_assert!(
                        apart(one.x, one.width, other.x, other.width)
                            || apart(one.y, one.height, other.y, other.height)
                    );
                }
            }
        }
    }
}
