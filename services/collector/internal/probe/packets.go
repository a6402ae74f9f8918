package probe

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/services/collector/internal/kernel"
)

// errNoCgroup2 means that there is no place for the programs that see packets.
var errNoCgroup2 = errors.New("no cgroup2 hierarchy is mounted")

// buildsPerCPU is how many DNS records one processor can be at, see bpf/dns.bpf.c.
const buildsPerCPU = 4

// attachPackets loads the programs that see DNS, which share the other programs' rings, counters and guards, and puts them at the
// root of the cgroup2 hierarchy. They are optional.
func (s *Set) attachPackets() error {
	object, err := loadDns()
	if err != nil {
		return fmt.Errorf("read built-in programs: %w", err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count processors: %w", err)
	}
	for _, name := range []string{"dns_builds", "dns_builds_used"} {
		object.Maps[name].MaxEntries = uint32(cpus * buildsPerCPU) //nolint:gosec // processors are few
	}
	values := map[string]any{"cgroup_by_memory_v1": flag(s.kernel.CgroupByMemory), "generation": s.generation}
	for name, value := range values {
		if err := object.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	shared := map[string]*ebpf.Map{
		"urgent": s.maps.Urgent, "bulk": s.maps.Bulk, "settings": s.maps.Settings, "buckets": s.maps.Buckets,
		"shortfalls": s.maps.Shortfalls, "shortfalls_other": s.maps.ShortfallsOther,
		"told": s.maps.Told, "told_left_out": s.maps.ToldLeftOut, "signs": s.maps.Signs, "progress": s.maps.Progress,
		"identity": s.maps.Identity, "awake": s.maps.Awake,
		"guard_settings": s.maps.GuardSettings, "guard_scopes": s.maps.GuardScopes, "guard_names": s.maps.GuardNames,
		"workloads": s.maps.Workloads, "workloads_generation": s.maps.WorkloadsGeneration, "homes": s.maps.Homes,
	}
	for name, m := range shared {
		object.Maps[name].MaxEntries = m.MaxEntries()
	}
	if err := s.attachTo(object, shared); err != nil {
		for _, hook := range packets {
			s.miss(hook, kernel.Explain(hook.Name, s.kernel.Release, err).Error())
		}
	}
	return nil
}

func (s *Set) attachTo(object *ebpf.CollectionSpec, shared map[string]*ebpf.Map) error {
	root, err := cgroup2()
	if err != nil {
		return err
	}
	collection, err := ebpf.NewCollectionWithOptions(object, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return err
	}
	defer collection.Close()
	types := map[string]ebpf.AttachType{"egress": ebpf.AttachCGroupInetEgress, "ingress": ebpf.AttachCGroupInetIngress}
	for _, hook := range packets {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: root, Attach: types[hook.Name], Program: collection.Programs[hook.Program]})
		if err != nil {
			return err
		}
		s.held = append(s.held, held{hook: hook, place: hook.Name, program: collection.DetachProgram(hook.Program), link: l})
	}
	return nil
}

const mountinfoPath = "/proc/self/mountinfo"

// cgroup2 is where the root of the cgroup2 hierarchy is mounted, as far as this process sees it.
func cgroup2() (string, error) {
	raw, err := os.ReadFile(mountinfoPath)
	if err != nil {
		return "", fmt.Errorf("find the cgroup2 hierarchy: %w", err)
	}
	for line := range bytes.Lines(raw) {
		// id parent device root mountpoint options [fields] - type …
		before, after, ok := strings.Cut(string(line), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		var at unix.Statfs_t
		if path := filepath.Clean(fields[4]); unix.Statfs(path, &at) == nil && at.Type == unix.CGROUP2_SUPER_MAGIC {
			return path, nil
		}
	}
	return "", errNoCgroup2
}
