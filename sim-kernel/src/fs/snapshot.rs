//! The text of a file that is made when it is read.

/// The text of one open file: made when it is read from the start, so that later reads continue the
/// same text.
#[derive(Debug, Default)]
pub(crate) struct Snapshot(Option<Vec<u8>>);

impl Snapshot {
    /// Copies a part of the text, from byte `at` on; returns the number of bytes copied.
    pub(crate) fn read<T: Into<Vec<u8>>>(
        &mut self,
        make: impl FnOnce() -> T,
        buffer: &mut [u8],
        at: u64,
    ) -> usize {
        if at == 0 {
            self.0 = None;
        }
        let text = self.0.get_or_insert_with(|| make().into());
        let rest = usize::try_from(at).ok().and_then(|at| text.get(at..));
        let rest = rest.unwrap_or(&[]);
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_of_one_text_until_it_is_read_from_the_start_again() {
        let mut file = Snapshot::default();
        let mut buffer = [0; 3];
        assert_eq!(file.read(|| "first", &mut buffer, 0), 3);
        assert_eq!(file.read(|| "other", &mut buffer, 3), 2);
        assert_eq!(&buffer[..2], b"st");
        assert_eq!(file.read(|| "other", &mut buffer, 5), 0);
        assert_eq!(file.read(|| "other", &mut buffer, u64::MAX), 0);
        assert_eq!(file.read(|| "other", &mut buffer, 0), 3);
        assert_eq!(&buffer, b"oth");
    }
}
