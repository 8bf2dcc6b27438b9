package server

import "testing"

// Stored files stay readable, whatever fields a release knows.
func TestStoredVolumeFiles(t *testing.T) {
	full := VolumeOptions{Mode: 0o770, UID: 1000, GID: 1001, MaxBytes: 1 << 30, AllSquash: true}
	for _, c := range []struct {
		name, file string
		want       VolumeOptions
		damaged    bool
	}{
		{"the first release with sums, all options",
			`{"id":"3uztkB9JMFZB4DTViOro9w==","options":{"mode":504,"uid":1000,"gid":1001,"max_bytes":1073741824,"all_squash":true},"sum":3934261574}`,
			full, false},
		{"the first release with sums, no options",
			`{"id":"dTng8w3Zyuf0x4+GOtmAMw==","options":{},"sum":579318077}`, VolumeOptions{}, false},
		{"before there were sums",
			`{"id":"dTng8w3Zyuf0x4+GOtmAMw==","options":{"uid":7}}`, VolumeOptions{UID: 7}, false},
		{"a later release",
			`{"copies":3,"id":"dTng8w3Zyuf0x4+GOtmAMw==","options":{"uid":7,"zones":["a","b"]},"sum":3135572712}`,
			VolumeOptions{UID: 7}, false},
		{"a later release, laid out for people",
			"{\n  \"sum\": 3135572712,\n  \"options\": {\"uid\": 7, \"zones\": [\"a\", \"b\"]},\n  \"id\": \"dTng8w3Zyuf0x4+GOtmAMw==\",\n  \"copies\": 3\n}\n",
			VolumeOptions{UID: 7}, false},
		{"a later release, a bit of its own field",
			`{"copies":2,"id":"dTng8w3Zyuf0x4+GOtmAMw==","options":{"uid":7,"zones":["a","b"]},"sum":3135572712}`,
			VolumeOptions{}, true},
		{"a bit of a key",
			`{"id":"dTng8w3Zyuf0x4+GOtmAMw==","optionr":{},"sum":579318077}`, VolumeOptions{}, true},
		{"cut", `{"id":"dTng8w3Zyuf0x4+GOtmAMw==","options":{}`, VolumeOptions{}, true},
		{"empty", ``, VolumeOptions{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := decodeVolumeFile([]byte(c.file))
			if c.damaged != (err != nil) || err == nil && f.Options != c.want {
				t.Errorf("%+v, %v", f.Options, err)
			}
		})
	}
}

// An older release checks the sum of what it knows, in this order: it must be the same for a file without new fields.
func TestVolumeFileIsWrittenAsBefore(t *testing.T) {
	const want = `{"id":"dTng8w3Zyuf0x4+GOtmAMw==","options":{},"sum":579318077}`
	f, err := decodeVolumeFile([]byte(want))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.encode(); err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}
