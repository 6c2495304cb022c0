"""The embedded mode: the platform's real parts as local processes, started and looked after by one supervisor.

home        where the state is                  part         what a part is (data)
ports       which ports, and who holds them     graph        in which order parts start
secrets     generated passwords and tokens      backoff      when a part that died starts again
parts       the platform's parts                probe        is a part ready
postgres, airflow, prometheus, mlflow           process      spawn, watch and end processes and their descendants
            how each upstream part is run       engine       runs parts; `daemon` is the process around it
connection  where other commands find it all    supervisor   what commands and tests call: start, stop, status
"""
