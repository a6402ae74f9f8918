package admission

import (
	"os"
	"regexp"
	"testing"
)

// The policies in docs/admission.md are policies.
func TestExamplesInTheDocs(t *testing.T) {
	raw, err := os.ReadFile("../../docs/admission.md")
	if err != nil {
		t.Skipf("the project's docs are not here: %v", err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(raw, -1)
	if len(examples) < 3 {
		t.Fatalf("%d examples, want at least 3", len(examples))
	}
	for i, example := range examples {
		if _, err := Parse("docs/admission.md", example[1]); err != nil {
			t.Errorf("example %d: %v", i+1, err)
		}
	}
}
