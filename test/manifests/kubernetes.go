package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// Objects are the documents of a manifest.
type Objects struct {
	DaemonSet *appsv1.DaemonSet
	Policy    *networkingv1.NetworkPolicy
	Config    *corev1.ConfigMap
	Namespace *corev1.Namespace
	Account   *corev1.ServiceAccount
}

// LoadKubernetes decodes a manifest as a strict API server does: unknown and repeated keys are errors, and so is a
// kind that this test does not know.
func LoadKubernetes(raw []byte) (Objects, error) {
	objects := Objects{
		DaemonSet: new(appsv1.DaemonSet), Policy: new(networkingv1.NetworkPolicy), Config: new(corev1.ConfigMap),
		Namespace: new(corev1.Namespace), Account: new(corev1.ServiceAccount),
	}
	kinds := map[string]any{
		"apps/v1 DaemonSet": objects.DaemonSet, "networking.k8s.io/v1 NetworkPolicy": objects.Policy,
		"v1 ConfigMap": objects.Config, "v1 Namespace": objects.Namespace, "v1 ServiceAccount": objects.Account,
	}
	for reader := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(raw))); ; {
		document := make([]byte, 1<<20)
		n, err := reader.Read(document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return objects, err
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document[:n], &kind); err != nil {
			return objects, err
		}
		key := kind.APIVersion + " " + kind.Kind
		into, ok := kinds[key]
		if !ok {
			return objects, fmt.Errorf("%q is not expected, or comes twice", key)
		}
		delete(kinds, key)
		if err := yaml.UnmarshalStrict(document[:n], into); err != nil {
			return objects, fmt.Errorf("%s: %w", key, err)
		}
	}
	for kind := range kinds {
		return objects, fmt.Errorf("%s is missing", kind)
	}
	return objects, nil
}

// KubernetesContainers are the containers of the DaemonSet's pod, init containers included.
func KubernetesContainers(objects Objects, socketGroup uint32) ([]Container, error) {
	pod := objects.DaemonSet.Spec.Template.Spec
	var containers []Container
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		if c.SecurityContext == nil || c.SecurityContext.RunAsUser == nil || c.SecurityContext.Capabilities == nil {
			return nil, fmt.Errorf("%s: runAsUser and capabilities must be written down", c.Name)
		}
		security := c.SecurityContext
		mounts, err := kubernetesMounts(pod, c)
		if err != nil {
			return nil, err
		}
		limits := c.Resources.Limits
		containers = append(containers, Container{
			Process: c.Name, UID: *security.RunAsUser,
			InSocketGroup:          inGroup(pod, socketGroup),
			Drop:                   names(security.Capabilities.Drop),
			Add:                    names(security.Capabilities.Add),
			Privileged:             is(security.Privileged, false),
			NoNewPrivileges:        !is(security.AllowPrivilegeEscalation, true),
			ReadOnlyRoot:           is(security.ReadOnlyRootFilesystem, false),
			HostPID:                pod.HostPID,
			Network:                podNetwork(objects.Policy),
			HostNamespaces:         podNamespaces(pod),
			Unconfined:             unconfined(pod, security),
			Devices:                devices(c),
			MemoryBytes:            limits.Memory().Value(),
			CPUs:                   limits.Cpu().AsApproximateFloat64(),
			Mounts:                 mounts,
			RestartsAlways:         pod.RestartPolicy == "" || pod.RestartPolicy == corev1.RestartPolicyAlways,
			HoldsServiceAccountKey: is(pod.AutomountServiceAccountToken, true),
		})
	}
	return containers, nil
}

func is(value *bool, absent bool) bool {
	if value == nil {
		return absent
	}
	return *value
}

func names(capabilities []corev1.Capability) []string {
	var out []string
	for _, c := range capabilities {
		out = append(out, string(c))
	}
	return out
}

func inGroup(pod corev1.PodSpec, group uint32) bool {
	if pod.SecurityContext == nil {
		return false
	}
	groups := pod.SecurityContext.SupplementalGroups
	return len(groups) == 1 && groups[0] == int64(group)
}

// podNetwork is egress if the policy lets nothing in, and out only names and the console's port.
func podNetwork(policy *networkingv1.NetworkPolicy) privilege.Network {
	open := fmt.Sprint(policy.Spec.PolicyTypes) != "[Ingress Egress]" || len(policy.Spec.Ingress) > 0
	for _, rule := range policy.Spec.Egress {
		open = open || len(rule.Ports) == 0
		for _, port := range rule.Ports {
			open = open || port.Port == nil || port.EndPort != nil || (port.Port.IntValue() != 53 && port.Port.IntValue() != 8084)
		}
	}
	if open {
		return "open"
	}
	return privilege.NetworkEgress
}

func podNamespaces(pod corev1.PodSpec) []string {
	var shared []string
	if pod.HostNetwork {
		shared = append(shared, "network")
	}
	if pod.HostIPC {
		shared = append(shared, "ipc")
	}
	if is(pod.ShareProcessNamespace, false) {
		shared = append(shared, "pid of the pod")
	}
	return shared
}

func unconfined(pod corev1.PodSpec, security *corev1.SecurityContext) []string {
	var off []string
	if p := security.AppArmorProfile; p != nil && p.Type != corev1.AppArmorProfileTypeRuntimeDefault {
		off = append(off, "apparmor")
	}
	seccomp := security.SeccompProfile
	if seccomp == nil && pod.SecurityContext != nil {
		seccomp = pod.SecurityContext.SeccompProfile
	}
	if seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault {
		off = append(off, "seccomp")
	}
	if security.SELinuxOptions != nil {
		off = append(off, "selinux")
	}
	if security.ProcMount != nil {
		off = append(off, "proc")
	}
	return off
}

func devices(c corev1.Container) []string {
	var out []string
	for _, device := range c.VolumeDevices {
		out = append(out, device.DevicePath)
	}
	for _, port := range c.Ports {
		if port.HostPort != 0 {
			out = append(out, fmt.Sprintf("host port %d", port.HostPort))
		}
	}
	return out
}

func kubernetesMounts(pod corev1.PodSpec, c corev1.Container) ([]Mount, error) {
	volumes := map[string]corev1.Volume{}
	for _, volume := range pod.Volumes {
		volumes[volume.Name] = volume
	}
	var mounts []Mount
	for _, m := range c.VolumeMounts {
		volume, ok := volumes[m.Name]
		if !ok {
			return nil, fmt.Errorf("%s: no volume %q", c.Name, m.Name)
		}
		if m.MountPropagation != nil || m.SubPath != "" || m.SubPathExpr != "" {
			return nil, fmt.Errorf("%s: %s: propagation and sub-paths are not compared", c.Name, m.MountPath)
		}
		mount := Mount{Target: m.MountPath, ReadOnly: m.ReadOnly}
		if volume.HostPath != nil {
			mount.Host = volume.HostPath.Path
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}
