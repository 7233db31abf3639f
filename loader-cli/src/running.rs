//! The running kernel and its modules, as its `/sys` and `/proc` describe them.

use std::fs;
use std::path::Path;

use object::Endianness;
use object::elf;
use object::read::elf::NoteIterator;

use crate::error::Error;

/// Where `/sys` and `/proc` are.
pub const ROOT: &str = "/";

/// A kernel that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its release; `None` if it is not told.
    pub release: Option<String>,
    /// Its build-id; `None` if it has none, or does not tell it to this user.
    pub build_id: Option<Vec<u8>>,
    /// The modules that are loaded, by name.
    pub modules: Vec<RunningModule>,
}

/// A module that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningModule {
    /// Its name, with underscores.
    pub name: String,
    /// As [`Running::build_id`].
    pub build_id: Option<Vec<u8>>,
}

impl Running {
    /// Reads `sys` and `proc` in a directory.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if there is no `sys/module`.
    pub fn read(root: &Path) -> Result<Self, Error> {
        let directory = root.join("sys/module");
        let entries = fs::read_dir(&directory).map_err(Error::io(&directory))?;
        let mut modules = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io(&directory))?.path();
            // What is built in has a directory, too, but it is not loaded.
            if !path.join("initstate").is_file() {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            modules.push(RunningModule {
                name: name.into_owned(),
                build_id: build_id_in(&path.join("notes/.note.gnu.build-id")),
            });
        }
        modules.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self {
            release: release(root),
            build_id: build_id(root),
            modules,
        })
    }
}

/// The build-id of the running kernel; `None` if it has none, or does not tell it to this user.
pub fn build_id(root: &Path) -> Option<Vec<u8>> {
    build_id_in(&root.join("sys/kernel/notes"))
}

/// The release of the running kernel.
pub fn release(root: &Path) -> Option<String> {
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).ok()?;
    Some(release.trim().to_owned())
}

/// The build-id in a file of ELF notes of this machine.
fn build_id_in(path: &Path) -> Option<Vec<u8>> {
    let notes = fs::read(path).ok()?;
    let notes =
        NoteIterator::<elf::FileHeader64<Endianness>>::new(Endianness::default(), 4, &notes);
    let mut notes = notes.ok()?.map_while(Result::ok);
    let note = notes.find(|note| {
        note.name() == elf::ELF_NOTE_GNU
            && note.n_type(Endianness::default()) == elf::NT_GNU_BUILD_ID
    })?;
    Some(note.desc().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len() as u32 + 1, description.len() as u32, kind] {
            note.extend(number.to_ne_bytes());
        }
        for bytes in [&[name, b"\0"].concat(), description] {
            note.extend(bytes);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notes");
        let id = [0xab; 20];
        for (notes, expected) in [
            (note(b"GNU", 3, &id), Some(&id[..])),
            (
                [
                    note(b"Xen", 6, b"linux\0"),
                    note(b"Linux", 3, b"x"),
                    note(b"GNU", 3, &id[..16]),
                ]
                .concat(),
                Some(&id[..16]),
            ),
            (note(b"Linux", 3, &id), None),
            (note(b"GNU", 3, &id)[..30].to_vec(), None),
            (Vec::new(), None),
        ] {
            fs::write(&path, notes).expect("a file");
            assert_eq!(build_id_in(&path).as_deref(), expected);
        }
    }
}
