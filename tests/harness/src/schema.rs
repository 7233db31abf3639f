//! The schemas of JSON documents, `loader-cli/schemas/COMMAND.json`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The schema of a command's documents.
///
/// # Errors
///
/// It is missing, or is not a JSON schema.
pub fn of(command: &str) -> Result<Value> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../loader-cli/schemas");
    let path = PathBuf::from(directory).join(format!("{command}.json"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let schema = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    if let Err(error) = jsonschema::meta::validate(&schema) {
        bail!("{}: {} {error}", path.display(), error.instance_path());
    }
    Ok(schema)
}

/// The documents that a command printed, one a line, each of which is as its schema says.
///
/// # Errors
///
/// There is none, or one is not as its schema says: where, and what.
pub fn check(command: &str, printed: &[u8]) -> Result<Vec<Value>> {
    let schema = of(command)?;
    let validator = jsonschema::validator_for(&schema).context(command.to_owned())?;
    let text = std::str::from_utf8(printed)?;
    let mut documents = Vec::new();
    for line in text.lines() {
        let document = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(
            errors.is_empty(),
            "{line}: not as schemas/{command}.json says: {errors:#?}"
        );
        documents.push(document);
    }
    ensure!(!documents.is_empty(), "{command} printed no document");
    Ok(documents)
}
