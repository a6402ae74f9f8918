package field_test

import (
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/account"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// TestNamesOfUsers: the host's names are of the host's processes, and of no container's, whatever ids they have in common.
func TestNamesOfUsers(t *testing.T) {
	accounts := account.Parse([]byte("toor:x:0:0:\nweb:x:33:33:\nann:x:1000:1000:\n"), []byte("wheel:x:0:\nwww:x:33:\n"))
	host := &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_HOST}
	container := &findingv1.Workload{ContainerId: "c1", Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN}
	tests := []struct {
		name                  string
		workload              *findingv1.Workload
		accounts              field.Accounts
		id, login             uint32
		user, group, loggedIn string
	}{
		{"user of the host", host, accounts, 33, 1000, "web", "www", "ann"},
		{"user of a container", container, accounts, 33, 1000, "33", "33", "ann"},
		{"user of whom nobody has claimed", &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_PENDING}, accounts, 33, field.NoLogin, "33", "33", ""},
		{"user before anybody says whose it is", nil, accounts, 33, field.NoLogin, "33", "33", ""},
		{"root by another name", host, accounts, 0, 0, "root", "root", "root"},
		{"root of a container", container, accounts, 0, field.NoLogin, "root", "root", ""},
		{"user without a name", host, accounts, 34, 34, "34", "34", "34"},
		{"nobody told names", host, nil, 33, 1000, "33", "33", "1000"},
		{"table that is not there", host, (*account.Table)(nil), 33, 1000, "33", "33", "1000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			credentials := &eventv1.Credentials{EffectiveUid: tt.id, EffectiveGid: tt.id, LoginUid: tt.login}
			c := &field.Context{Event: &eventv1.Event{Credentials: credentials}, Workload: tt.workload, Accounts: tt.accounts}
			for name, want := range map[string]string{"user.name": tt.user, "group.name": tt.group, "user.loginname": tt.loggedIn} {
				f, err := field.Lookup(name, "", false)
				if err != nil {
					t.Fatal(err)
				}
				if got, ok := f.Str(c); got != want || ok != (want != "") {
					t.Errorf("%s = %q, %v, want %q", name, got, ok, want)
				}
			}
		})
	}
}
