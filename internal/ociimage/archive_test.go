package ociimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestArchiveIsWhatItsDigestsSay(t *testing.T) {
	files := []File{{Path: "bin/", Mode: 0o755}, {Path: "bin/x", Mode: 0o755, Content: []byte("x")}, {Path: "bin/y", Link: "x"}}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := Write(out, Config{Name: "a.b/c:1", Command: []string{"/bin/x"}}, files); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same files gave different bytes")
	}
	entries := map[string][]byte{}
	for r := tar.NewReader(&first); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		entries[header.Name] = content
		if digest, ok := strings.CutPrefix(header.Name, "blobs/sha256/"); ok {
			if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != digest {
				t.Errorf("%s holds other content", header.Name)
			}
		}
	}
	var index struct {
		Manifests []struct {
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(entries["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index.json: %v, %d manifests", err, len(index.Manifests))
	}
	m := index.Manifests[0]
	if m.Annotations[nameAnnotation] != "a.b/c:1" || entries["blobs/sha256/"+strings.TrimPrefix(m.Digest, "sha256:")] == nil {
		t.Errorf("manifest %+v is not in the archive under its name", m)
	}
}
