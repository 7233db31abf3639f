//! The schemas of JSON documents, `schemas/COMMAND.json`.
//!
//! The tests of other packages include this file by its path, and so need `jsonschema` as well.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// The schema of a command's documents; or that it is missing, or is not a JSON schema.
pub(crate) fn of(command: &str) -> Result<Value, String> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../loader-cli/schemas");
    let path = PathBuf::from(directory).join(format!("{command}.json"));
    let of_path = |error: &dyn std::error::Error| format!("{}: {error}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| of_path(&error))?;
    let schema = serde_json::from_str(&text).map_err(|error| of_path(&error))?;
    jsonschema::meta::validate(&schema).map_err(|error| of_path(&error))?;
    Ok(schema)
}

/// The documents that a command printed, one a line; or which one is not as the schema of the command
/// says, or that there is none.
pub(crate) fn check(command: &str, printed: &[u8]) -> Result<Vec<Value>, String> {
    let schema = of(command)?;
    let validator = jsonschema::validator_for(&schema).map_err(|error| error.to_string())?;
    let mut documents = Vec::new();
    for line in String::from_utf8_lossy(printed).lines() {
        let document = serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        if !errors.is_empty() {
            return Err(format!(
                "{line}: not as schemas/{command}.json says: {errors:#?}"
            ));
        }
        documents.push(document);
    }
    match documents.is_empty() {
        true => Err(format!("{command} printed no document")),
        false => Ok(documents),
    }
}
