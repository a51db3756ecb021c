//! Finalizers that keep an object while it is used: when to set them, when to take them away.
//! Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What a protecting controller has to do with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// It lacks the finalizer.
    Missing,
    /// It is being deleted and only waits, as far as we are concerned, until it is not used.
    Ending,
    /// Nothing.
    Settled,
}

/// What is to be done about `finalizer`.
pub fn state(metadata: &ObjectMeta, finalizer: &str) -> Protection {
    let has = metadata.finalizers.iter().flatten().any(|f| f == finalizer);
    match (metadata.deletion_timestamp.is_some(), has) {
        (true, true) => Protection::Ending,
        (false, false) => Protection::Missing,
        _ => Protection::Settled,
    }
}

/// Adds the finalizer.
pub fn protect(metadata: &mut ObjectMeta, finalizer: &str) {
    let finalizers = metadata.finalizers.get_or_insert_default();
    finalizers.push(finalizer.to_owned());
}

/// Takes the finalizer away.
pub fn release(metadata: &mut ObjectMeta, finalizer: &str) {
    if let Some(finalizers) = &mut metadata.finalizers {
        finalizers.retain(|f| f != finalizer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn protects_the_living_and_lets_the_unused_go() {
        let mut metadata = ObjectMeta::default();
        assert_eq!(state(&metadata, "a/b"), Protection::Missing);
        protect(&mut metadata, "a/b");
        protect(&mut metadata, "c/d");
        assert_eq!(state(&metadata, "a/b"), Protection::Settled);
        metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(state(&metadata, "a/b"), Protection::Ending);
        release(&mut metadata, "a/b");
        assert_eq!(state(&metadata, "a/b"), Protection::Settled);
        assert_eq!(
            metadata.finalizers.as_deref(),
            Some(&["c/d".to_owned()][..])
        );
    }
}
