//! What is in stores: tables by build-id, when a log says a release alone.
//!
//! A store has no names, so what each table says that it is of is read once: some hundred bytes of
//! each. Whoever opens one checks it like any other.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::files::{self, BUILD_ID_DIR, TABLE_EXTENSION};
use crate::hex;
use crate::message;
use crate::symbols::{Claim, Symbols};

/// The tables of some stores, by module and release.
#[derive(Debug, Default)]
pub(super) struct Stores {
    tables: HashMap<(Option<String>, String), Vec<Stored>>,
}

/// A table in a store.
#[derive(Debug)]
struct Stored {
    build_id: Vec<u8>,
    path: PathBuf,
}

/// Tables of several builds, where one is needed.
#[derive(Debug, thiserror::Error)]
#[error("{what} of release {release} is there in several builds, {}, and the log does not say which; name its table with --table", builds.join(", "))]
pub(super) struct Ambiguous {
    what: String,
    release: String,
    builds: Vec<String>,
}

impl Stores {
    /// Reads the stores in some directories.
    pub(super) fn read(directories: &[PathBuf]) -> Self {
        let mut stores = Self::default();
        for directory in directories {
            let store = directory.join(BUILD_ID_DIR);
            if store.is_dir() {
                files::below(&store, message::detail)
                    .into_iter()
                    .for_each(|path| stores.add(path));
            }
        }
        stores
    }

    fn add(&mut self, path: PathBuf) {
        if path.extension() != Some(OsStr::new(TABLE_EXTENSION)) {
            return;
        }
        let Some(claim) = Symbols::claim(&path) else {
            message::detail(format_args!(
                "{}: it does not say of which kernel it is",
                path.display()
            ));
            return;
        };
        let Claim {
            module,
            release,
            build_id,
        } = claim;
        let tables = self.tables.entry((module, release)).or_default();
        // The first directory counts.
        if tables.iter().all(|table| table.build_id != build_id) {
            tables.push(Stored { build_id, path });
        }
    }

    /// The table of the kernel, or of a module, of a release.
    ///
    /// # Errors
    ///
    /// [`Ambiguous`] if there are several builds.
    pub(super) fn find(
        &self,
        module: Option<&str>,
        release: &str,
    ) -> Result<Option<&Path>, Ambiguous> {
        let of = (module.map(str::to_owned), release.to_owned());
        match self.tables.get(&of).map_or(&[][..], Vec::as_slice) {
            [] => Ok(None),
            [one] => Ok(Some(&one.path)),
            several => Err(Ambiguous {
                what: module.map_or_else(
                    || "the kernel".to_owned(),
                    |module| format!("the module {module}"),
                ),
                release: release.to_owned(),
                builds: several.iter().map(|one| hex(&one.build_id)).collect(),
            }),
        }
    }
}
