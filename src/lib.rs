//! Foldline.
