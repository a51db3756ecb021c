//! Selectors of devices: CEL expressions, compiled once.

use std::collections::HashMap;

use cel::{Program, SyntaxError, Value};
use k8s_openapi::api::resource::v1::DeviceSelector;
use parking_lot::Mutex;

use super::allocator::AllocateError;
use crate::cache::devices::slice::Device;

/// What an expression may cost (`CELSelectorExpressionMaxCost`).
const LIMIT: u64 = 1_000_000;
/// How many compiled expressions are kept: there are few, those of classes and of templates.
const KEPT: usize = 128;

#[derive(Debug, Default)]
pub struct Selectors {
    compiled: Mutex<HashMap<String, Result<Program, SyntaxError>>>,
}

impl Selectors {
    fn compile(&self, expression: &str) -> Result<Program, SyntaxError> {
        let mut compiled = self.compiled.lock();
        if let Some(known) = compiled.get(expression) {
            return known.clone();
        }
        if compiled.len() >= KEPT {
            compiled.clear();
        }
        let program = Program::compile(expression, &["device"]);
        compiled.insert(expression.to_owned(), program.clone());
        program
    }

    /// Whether all selectors match. `whose` they are, an error says.
    pub fn select(
        &self,
        selectors: &[DeviceSelector],
        device: &Device,
        whose: impl Fn() -> String,
    ) -> Result<bool, AllocateError> {
        for (i, selector) in selectors.iter().enumerate() {
            let Some(cel) = &selector.cel else {
                continue;
            };
            let broken =
                |why: String| AllocateError::Broken(format!("{}: selector #{i}: {why}", whose()));
            let program = self
                .compile(&cel.expression)
                .map_err(|e| broken(format!("CEL compile error: compilation failed: {e}")))?;
            let variable = match &device.variable {
                Ok(variable) => variable.clone(),
                Err(why) => return Err(broken(format!("CEL runtime error: {why}"))),
            };
            match program.evaluate(&[("device", variable)], LIMIT) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(other) => {
                    return Err(broken(format!(
                        "CEL runtime error: CEL result of type {} could not be converted to bool: type conversion error from '{}' to 'bool'",
                        other.type_name(),
                        other.type_name()
                    )));
                }
                Err(error) => return Err(broken(format!("CEL runtime error: {error}"))),
            }
        }
        Ok(true)
    }
}
