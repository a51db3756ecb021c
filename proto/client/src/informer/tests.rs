//! Informers against an API served in this process.
