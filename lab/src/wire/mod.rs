//! A link whose frames pass through this process.
