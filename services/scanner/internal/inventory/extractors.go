package inventory

import (
	"context"
	"fmt"
	"math"

	"github.com/google/osv-scalibr/extractor/filesystem"
	"github.com/google/osv-scalibr/extractor/filesystem/language/golang/gobinary"
	"github.com/google/osv-scalibr/extractor/filesystem/language/java/archive"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/packagejson"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/wheelegg"
	"github.com/google/osv-scalibr/extractor/filesystem/language/ruby/gemspec"
	"github.com/google/osv-scalibr/extractor/filesystem/language/rust/cargoauditable"
	"github.com/google/osv-scalibr/extractor/filesystem/os/apk"
	"github.com/google/osv-scalibr/extractor/filesystem/os/dpkg"
	"github.com/google/osv-scalibr/extractor/filesystem/os/rpm"
	"github.com/google/osv-scalibr/inventory"

	cpb "github.com/google/osv-scalibr/binary/proto/config_go_proto"
)

// kind is an extractor and the largest file that it is given, in MiB.
type kind struct {
	make    func(*cpb.PluginConfig) (filesystem.Extractor, error)
	largest int64
}

// kinds are all extractors. They read what was installed; lock files say what somebody once meant to install, and are left out.
var kinds = []kind{
	{apk.New, 32},              // lib/apk/db/installed, read line by line
	{archive.New, 512},         // read in place but for archives in archives, which are unpacked: see newExtractors
	{cargoauditable.New, 2048}, // read in place
	{dpkg.New, 64},             // var/lib/dpkg/status, read line by line
	{gemspec.New, 4},           // read whole
	{gobinary.New, 2048},       // read in place
	{packagejson.New, 4},       // read whole
	{rpm.New, 256},             // copied: the database's readers want a file on disk
	{wheelegg.New, 16},         // read whole
}

// Bounds of archives in archives, which are held in memory, and of databases.
const (
	maxArchiveBytes = 96 << 20
	maxArchiveDepth = 4
	// maxDatabaseSeconds is how long one database of rpm may take.
	maxDatabaseSeconds = 60
)

func newExtractors(found *collection) ([]filesystem.Extractor, error) {
	cfg := &cpb.PluginConfig{
		// An extractor passes over larger files without a word; guarded reports them.
		MaxFileSizeBytes: math.MaxInt64,
		PluginSpecific: []*cpb.PluginSpecificConfig{{Config: &cpb.PluginSpecificConfig_JavaArchive{
			JavaArchive: &cpb.JavaArchiveConfig{MaxZipDepth: maxArchiveDepth, MaxOpenedBytes: maxArchiveBytes},
		}}, {Config: &cpb.PluginSpecificConfig_Rpm{
			Rpm: &cpb.RpmConfig{TimeoutSeconds: maxDatabaseSeconds}, // a damaged Berkeley DB can send its reader round in circles
		}}},
	}
	var extractors []filesystem.Extractor
	for _, k := range kinds {
		e, err := k.make(cfg)
		if err != nil {
			return nil, fmt.Errorf("make extractor: %w", err)
		}
		extractors = append(extractors, &guarded{Extractor: e, largest: k.largest << 20, found: found})
	}
	return extractors, nil
}

// guarded is an extractor that is given no file that is too large, and that a file makes panic at most for itself.
type guarded struct {
	filesystem.Extractor
	largest int64
	found   *collection
}

// FileRequired says whether the extractor is for the file.
func (g *guarded) FileRequired(api filesystem.FileAPI) (required bool) {
	defer func() {
		if r := recover(); r != nil {
			g.found.fault(api.Path(), fmt.Sprintf("%s: panic: %v", g.Name(), r))
			required = false
		}
	}()
	return g.Extractor.FileRequired(api)
}

// Extract reads a file.
func (g *guarded) Extract(ctx context.Context, input *filesystem.ScanInput) (result inventory.Inventory, err error) {
	defer func() {
		if r := recover(); r != nil {
			result, err = inventory.Inventory{}, fmt.Errorf("panic: %v", r)
		}
	}()
	if input.Info != nil && input.Info.Size() > g.largest {
		return inventory.Inventory{}, fmt.Errorf("%d bytes, at most %d are read", input.Info.Size(), g.largest)
	}
	return g.Extractor.Extract(ctx, input)
}
