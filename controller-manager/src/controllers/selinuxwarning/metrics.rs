//! The conflicts that there are, under upstream's name.

use std::sync::Arc;

use parking_lot::Mutex;

use super::usage::Usage;
use crate::metrics::Meter;

/// Tells them whenever they are asked for: each twice, as either of the pods sees it.
pub fn tell(meter: &Meter, usage: &Arc<Mutex<Usage>>) -> prometheus::Result<()> {
    let gauges = meter.gauges(
        "selinux_warning_controller_selinux_volume_conflict",
        "Two pods that want the same volume differently.",
        &[
            "property",
            "pod1_namespace",
            "pod1_name",
            "pod1_value",
            "pod2_namespace",
            "pod2_name",
            "pod2_value",
        ],
    )?;
    let usage = Arc::clone(usage);
    meter.before_gathering(move || {
        let conflicts = usage.lock().conflicts();
        gauges.reset();
        for conflict in conflicts {
            let labels = [
                conflict.property.name(),
                conflict.pod.namespace(),
                conflict.pod.name(),
                &conflict.value,
                conflict.other.namespace(),
                conflict.other.name(),
                &conflict.other_value,
            ];
            gauges.with_label_values(&labels).set(1);
        }
    });
    Ok(())
}
