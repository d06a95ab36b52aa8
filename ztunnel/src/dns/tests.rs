//! Tables of names and bytes.
