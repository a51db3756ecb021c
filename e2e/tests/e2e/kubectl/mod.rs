//! kubectl of the cluster's own version, command by command.

mod objects;
mod pods;
mod workloads;

/// The column of a table, by its header, in the first row.
pub fn cell(table: &str, header: &str) -> String {
    let mut lines = table.lines();
    let headers = lines.next().unwrap_or_default();
    let start = headers
        .find(header)
        .unwrap_or_else(|| panic!("no column {header} in:\n{table}"));
    let row = lines
        .next()
        .unwrap_or_else(|| panic!("no row in:\n{table}"));
    // Columns are aligned to their headers, and three spaces apart.
    row.get(start..)
        .unwrap_or_default()
        .split("   ")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}
