package probe

// Hook is a place in the kernel and the program that goes there.
type Hook struct {
	// Name of the typed tracepoint, or of the iterator.
	Name string
	// Program is the C function.
	Program string
	// Required hooks fail the start if the kernel refuses them; without the others something is degraded.
	Required bool
	// Without says what is missing without the hook, for people.
	Without string
}

// hooks of the tracepoint tier, in the order in which they are attached: exits before execs and forks, so that no
// process is seen to start whose end goes unseen.
var hooks = []Hook{
	{Name: "sched_process_exit", Program: "on_sched_process_exit", Required: true},
	{Name: "sched_process_fork", Program: "on_sched_process_fork", Required: true},
	{Name: "sched_process_exec", Program: "on_sched_process_exec", Required: true},
	{Name: "sys_exit", Program: "on_sys_exit", Required: true},
	{Name: iterator, Program: "on_task", Without: "processes that ran before the collector are unknown"},
}

// iterator is the one hook that is not a tracepoint: user space runs it.
const iterator = "iter/task"
