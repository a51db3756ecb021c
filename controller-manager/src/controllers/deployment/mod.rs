mod conditions;
pub mod plan;
mod revisions;
mod rolling;
mod scale;
mod status;
#[cfg(test)]
mod tests;
