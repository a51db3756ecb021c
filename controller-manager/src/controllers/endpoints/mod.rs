pub mod plan;
#[cfg(test)]
mod tests;
