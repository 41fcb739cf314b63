"""The plans that devices execute: authoring, compiling, checking, and their formats."""
