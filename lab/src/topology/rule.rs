//! nf_tables rules as values.
