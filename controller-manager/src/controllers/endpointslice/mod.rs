mod hints;
pub mod plan;
mod tracker;
#[cfg(test)]
mod tests;
