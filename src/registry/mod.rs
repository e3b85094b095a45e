//! Registries: whom to ask for credentials.
