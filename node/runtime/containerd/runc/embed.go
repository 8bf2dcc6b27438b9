//go:build embedrunc

package runc

import _ "embed"

//go:embed runc.zst
var compressed []byte
