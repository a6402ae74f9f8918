// Package ociimage makes small container images out of files, without a registry or a builder: what `palisade demo` and
// the tests run. The result is an OCI image layout in a tar archive (OCI Image Format 1.1), which containerd, Docker and
// Podman import.
package ociimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"
)

// File is one entry of the image's only layer.
type File struct {
	// Path without leading slash. A directory ends in a slash.
	Path string
	// Mode are the permission bits.
	Mode int64
	// Content of a regular file.
	Content []byte
	// Link makes the entry a symbolic link to this target.
	Link string
}

// Config is what the image says about itself.
type Config struct {
	// Name is the reference it is imported under, for example palisade.demo/shell:1.
	Name string
	// Command is what a container runs unless told otherwise.
	Command []string
	Env     []string
}

// Media types of the OCI image specification.
const (
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
)

// nameAnnotation is where containerd looks for the name an archive's image is to have.
const nameAnnotation = "io.containerd.image.name"

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Write writes the archive. The same files give the same bytes, and so the same digest.
func Write(w io.Writer, config Config, files []File) error {
	layer, err := layerOf(files)
	if err != nil {
		return err
	}
	archive := archive{tar: tar.NewWriter(w), written: map[string]bool{}}
	layerAt := archive.blob(mediaLayer, layer)
	configAt := archive.json(mediaConfig, imageConfig(config, layerAt.Digest))
	manifestAt := archive.json(mediaManifest, map[string]any{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": configAt, "layers": []descriptor{layerAt},
	})
	manifestAt.Annotations = map[string]string{nameAnnotation: config.Name}
	archive.file("index.json", mustJSON(map[string]any{
		"schemaVersion": 2, "mediaType": mediaIndex, "manifests": []descriptor{manifestAt},
	}))
	archive.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	if archive.err != nil {
		return fmt.Errorf("write image %s: %w", config.Name, archive.err)
	}
	return archive.tar.Close()
}

func imageConfig(config Config, layerDigest string) map[string]any {
	return map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Cmd": config.Command, "Env": config.Env},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layerDigest}},
	}
}

func layerOf(files []File) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		header := &tar.Header{
			Name: f.Path, Mode: f.Mode, Size: int64(len(f.Content)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg,
		}
		switch {
		case f.Link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, f.Link
		case f.Path[len(f.Path)-1] == '/':
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Content); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return out.Bytes(), nil
}

// archive keeps the first error, so that a layout can be written as a list.
type archive struct {
	tar     *tar.Writer
	written map[string]bool
	err     error
}

func (a *archive) json(mediaType string, content any) descriptor {
	return a.blob(mediaType, mustJSON(content))
}

func (a *archive) blob(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	if !a.written[digest] {
		a.written[digest] = true
		a.file("blobs/sha256/"+digest, content)
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(content)}
}

func (a *archive) file(name string, content []byte) {
	if a.err != nil {
		return
	}
	a.err = a.tar.WriteHeader(&tar.Header{
		Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg,
	})
	if a.err == nil {
		_, a.err = a.tar.Write(content)
	}
}

// mustJSON encodes maps and structs made in this file, which cannot fail.
func mustJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
