//go:build tools

// Package tools names what `cargo xtask test` builds from this module.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
