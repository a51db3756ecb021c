//! The vocabulary that every Kubernetes daemon and library shares: names of kinds and
//! resources, [`Status`] errors, field errors, quantities, selectors, name validation.
//!
//! Pure values and functions. What must not be here: I/O, clocks, randomness, wire formats
//! (they live in `codec`) and anything about one particular kind (that lives in `api`).

pub mod duration;
pub mod field;
pub mod fields;
pub mod gofmt;
pub mod gvk;
pub mod labels;
pub mod name_generator;
pub mod owner;
pub mod quantity;
pub mod status;
pub mod time;
pub mod validation;

pub use field::{ErrorList, FieldError, Path};
pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use quantity::Quantity;
pub use status::{Reason, Status};
