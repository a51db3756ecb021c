//! Objects as quotas see them: measured as they are read, so that only names and amounts are
//! kept.

use std::marker::PhantomData;

use api::quota::resource_claims::{Claim, DeviceClass};
use api::quota::{Measured, Meta, Pod, Service, VolumeClaim};
use client::{Identity, Kind, Object, ResourceInfo};
use serde::{Deserialize, Deserializer};

/// A kind with a price.
pub trait Priced: for<'de> Deserialize<'de> + Send + Sync + 'static {
    const RESOURCE: ResourceInfo;
    fn meta(&self) -> &Meta;
    fn measure(&self) -> Measured;
    /// See [`Pod::extended_claim`].
    fn extended_claim(&self) -> Option<&str> {
        None
    }
}

impl Priced for Pod {
    const RESOURCE: ResourceInfo = ResourceInfo::of("", "v1", "Pod", "pods", true);
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn measure(&self) -> Measured {
        Pod::measure(self)
    }
    fn extended_claim(&self) -> Option<&str> {
        Pod::extended_claim(self)
    }
}

impl Priced for Service {
    const RESOURCE: ResourceInfo = ResourceInfo::of("", "v1", "Service", "services", true);
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn measure(&self) -> Measured {
        Service::measure(self)
    }
}

impl Priced for VolumeClaim {
    const RESOURCE: ResourceInfo = ResourceInfo::of(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        true,
    );
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn measure(&self) -> Measured {
        VolumeClaim::measure(self)
    }
}

/// An object of which only the cost is kept.
#[derive(Debug)]
pub struct Counted<T> {
    metadata: Identity,
    pub measured: Measured,
    pub extended_claim: Option<Box<str>>,
    kind: PhantomData<fn() -> T>,
}

impl<'de, T: Priced> Deserialize<'de> for Counted<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let object = T::deserialize(d)?;
        let meta = object.meta();
        Ok(Self {
            metadata: Identity {
                name: meta.name.as_str().into(),
                namespace: meta.namespace.as_str().into(),
                uid: meta.uid.as_str().into(),
                resource_version: meta.resource_version.as_str().into(),
            },
            measured: object.measure(),
            extended_claim: object.extended_claim().map(Into::into),
            kind: PhantomData,
        })
    }
}

impl<T: Priced> Object for Counted<T> {
    fn name(&self) -> &str {
        &self.metadata.name
    }
    fn namespace(&self) -> &str {
        &self.metadata.namespace
    }
    fn uid(&self) -> &str {
        &self.metadata.uid
    }
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl<T: Priced> Kind for Counted<T> {
    const RESOURCE: ResourceInfo = T::RESOURCE;
}

/// An object that only counts as one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct One {
    metadata: Identity,
}

client::slim_object!(One);

/// What a claim costs depends on classes and pods, so it is kept whole.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct CountedClaim(pub Claim);

#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct CountedClass(pub DeviceClass);

macro_rules! whole {
    ($ty:ty, $kind:literal, $plural:literal, $namespaced:literal) => {
        impl Object for $ty {
            fn name(&self) -> &str {
                &self.0.metadata.name
            }
            fn namespace(&self) -> &str {
                &self.0.metadata.namespace
            }
            fn uid(&self) -> &str {
                &self.0.metadata.uid
            }
            fn resource_version(&self) -> &str {
                &self.0.metadata.resource_version
            }
        }
        impl Kind for $ty {
            const RESOURCE: ResourceInfo =
                ResourceInfo::of("resource.k8s.io", "v1", $kind, $plural, $namespaced);
        }
    };
}

whole!(CountedClaim, "ResourceClaim", "resourceclaims", true);
whole!(CountedClass, "DeviceClass", "deviceclasses", false);
